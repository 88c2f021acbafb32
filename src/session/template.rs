//! The chat template: messages in, one prompt text out.
//!
//! Jinja, rendered by minijinja as the reference's engine is set up: `trim_blocks`,
//! `lstrip_blocks`, loop controls, Python's string methods, and `raise_exception`,
//! `strftime_now`, `tojson` of its own. A template is somebody's file: its steps, its output
//! and the nesting of its syntax are bounded, it can include nothing and do nothing. What it
//! keeps in variables meanwhile is bounded by its steps only: minijinja lets nobody look at
//! `~` and `+`, so one that doubles a string again and again can still use up the memory.
//! Reference: transformers, `utils/chat_template_utils.py`.

use std::fmt::Write as _;
use std::{io, panic, thread};

use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, context};

use super::message::{Message, Part};
use super::python_json;

/// Gemma 3n's own template, where a file brings none.
pub const GEMMA: &str = include_str!("gemma.jinja");

/// Steps that every rendering may take, and those that a message adds; the longest honest ones
/// take some hundred a message.
const FUEL: u64 = 500_000;
const FUEL_OF_MESSAGE: u64 = 2_000;

/// Bytes that one rendering may write beyond what went in.
const OUTPUT_MARGIN: usize = 4 << 20;

/// Bytes of a template's source; the longest published ones have some 20 KiB.
const SOURCE_LIMIT: usize = 64 << 10;

/// Bytes of the stack that templates are compiled and rendered on (touched pages alone take
/// memory). minijinja follows `a ~ b ~ …`, `x|f|f…`, `not not …`, `elif` chains and nested values
/// by recursion; the limits of source and steps keep that within this.
const STACK: usize = 256 << 20;

/// A template that cannot be used, or that refused its messages.
#[derive(Debug, thiserror::Error)]
#[error("{origin}{}: {message}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct TemplateError {
    origin: String,
    line: Option<usize>,
    message: String,
}

/// The texts a template may ask for by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTexts {
    /// `bos_token`
    pub bos: String,
    /// `eos_token`
    pub eos: String,
    /// `unk_token`
    pub unk: String,
    /// `pad_token`
    pub pad: String,
}

/// A chat template that parses.
pub struct ChatTemplate {
    origin: String,
    source: String,
    specials: SpecialTexts,
}

impl ChatTemplate {
    /// Takes a template's text; `origin` names it in messages.
    ///
    /// # Errors
    /// Not UTF-8, too long, or not Jinja: with the line.
    pub fn new(origin: &str, source: &[u8], specials: SpecialTexts) -> Result<Self, TemplateError> {
        let fail =
            |message: String| TemplateError { origin: origin.to_owned(), line: None, message };
        if source.len() > SOURCE_LIMIT {
            return Err(fail(format!(
                "the template has {} bytes, at most {SOURCE_LIMIT} are read",
                source.len()
            )));
        }
        let source = std::str::from_utf8(source)
            .map_err(|error| fail(format!("the template is not UTF-8: {error}")))?;
        let source = without_generation_tags(&source.replace("\r\n", "\n").replace('\r', "\n"));
        let template = Self { origin: origin.to_owned(), source, specials };
        template.on_own_stack(|| {
            template
                .environment(FUEL)
                .template_from_named_str("chat", &template.source)
                .map_err(|error| template.error(&error))?;
            Ok(())
        })?;
        Ok(template)
    }

    /// Where the text comes from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether this stands in the template's own text.
    pub fn writes(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// The error of a template whose output can't be used.
    pub(super) fn refuses(&self, message: String) -> TemplateError {
        TemplateError { origin: self.origin.clone(), line: None, message }
    }

    /// Renders messages, ending with the opening of the model's turn where asked.
    ///
    /// # Errors
    /// The template's own `raise_exception`, a mistake in it, or one of the bounds.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let input = messages.iter().map(Message::len).sum();
        let values = messages.iter().map(message_value).collect();
        self.on_own_stack(|| self.render_values(values, input, add_generation_prompt))
    }

    fn on_own_stack<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, TemplateError> + Send,
    ) -> Result<T, TemplateError> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            let thread = thread.map_err(|error| TemplateError {
                origin: self.origin.clone(),
                line: None,
                message: format!("no thread can be started to render it: {error}"),
            })?;
            thread.join().unwrap_or_else(|fault| panic::resume_unwind(fault))
        })
    }

    fn render_values(
        &self,
        messages: Vec<Value>,
        input: usize,
        add_generation_prompt: bool,
    ) -> Result<String, TemplateError> {
        let environment = self.environment(FUEL + FUEL_OF_MESSAGE * messages.len() as u64);
        let template = environment
            .template_from_named_str("chat", &self.source)
            .map_err(|error| self.error(&error))?;
        // A system text may stand in every turn, so the bound grows with the messages' number.
        let limit = input.saturating_mul(messages.len().max(4)).saturating_add(OUTPUT_MARGIN);
        let mut output = Bounded { bytes: Vec::new(), limit };
        template
            .render_captured_to(
                context! {
                    messages => messages,
                    add_generation_prompt => add_generation_prompt,
                    bos_token => self.specials.bos,
                    eos_token => self.specials.eos,
                    unk_token => self.specials.unk,
                    pad_token => self.specials.pad,
                    tools => (),
                    documents => (),
                },
                &mut output,
            )
            .map_err(|error| self.error(&error))?;
        String::from_utf8(output.bytes).map_err(|error| TemplateError {
            origin: self.origin.clone(),
            line: None,
            message: error.to_string(),
        })
    }

    fn environment(&self, fuel: u64) -> Environment<'_> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(fuel));
        environment.set_unknown_method_callback(python_method);
        environment.set_formatter(python_format);
        environment.add_filter("trim", trim);
        environment.add_filter("tojson", python_json::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment
    }

    fn error(&self, error: &minijinja::Error) -> TemplateError {
        let message = match (error.kind(), error.detail()) {
            (ErrorKind::OutOfFuel, _) => "the template takes too many steps".to_owned(),
            (ErrorKind::WriteFailure, _) => "the template's output is too long".to_owned(),
            (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        };
        TemplateError { origin: self.origin.clone(), line: error.line(), message }
    }
}

/// A message as templates expect it: words alone are a string, anything else a list of items.
fn message_value(message: &Message) -> Value {
    let content = match message.content.as_slice() {
        [Part::Text { text }] => Value::from(text.as_str()),
        parts => parts.iter().map(part_value).collect(),
    };
    context! { role => message.role.name(), content => content }
}

/// A part as templates know it; of a picture or sound they see that there is one.
fn part_value(part: &Part) -> Value {
    match part {
        Part::Text { text } => [("type", "text"), ("text", text)].into_iter().collect(),
        Part::Image { .. } => [("type", "image")].into_iter().collect(),
        Part::Audio { .. } => [("type", "audio")].into_iter().collect(),
    }
}

/// `{% generation %}` marks answers for training; around a rendering it changes nothing.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag, after) =
            (&rest[..start], &rest[start..start + length + 2], &rest[start + length + 2..]);
        result.push_str(before);
        match tag[2..length].trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => result.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => result.push_str(&tag.replace("endgeneration", "endif")),
            _ => result.push_str(tag),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// Python's idea of white space: Unicode's, and the four separators of ASCII.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Jinja's `trim`: `str(value).strip(chars)`.
fn trim(value: Value, chars: Option<String>) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match chars {
        Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
        None => text.trim_matches(is_python_space).to_owned(),
    }
}

/// `str(value)` where it differs from minijinja's.
fn python_format(
    output: &mut Output<'_>,
    state: &State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    match bool::try_from(value.clone()) {
        Ok(true) => Ok(output.write_str("True")?),
        Ok(false) => Ok(output.write_str("False")?),
        Err(_) if value.is_none() => Ok(output.write_str("None")?),
        Err(_) => minijinja::escape_formatter(output, state, value),
    }
}

/// Methods of Python's strings, lists and dictionaries.
fn python_method(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, minijinja::Error> {
    if let (Some(text), true) = (value.as_str(), args.is_empty()) {
        match method {
            "strip" => return Ok(text.trim_matches(is_python_space).into()),
            "lstrip" => return Ok(text.trim_start_matches(is_python_space).into()),
            "rstrip" => return Ok(text.trim_end_matches(is_python_space).into()),
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `datetime.now().strftime(format)`, in local time.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    write!(text, "{}", chrono::Local::now().format(format)).map_err(|_| {
        minijinja::Error::new(
            ErrorKind::InvalidOperation,
            format!("unknown time format {format:?}"),
        )
    })?;
    Ok(text)
}

/// Memory that refuses to grow past its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Role;

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        template: Option<String>,
        messages: Vec<serde_json::Value>,
        add_generation_prompt: bool,
        rendered: String,
    }

    fn template(source: &str) -> ChatTemplate {
        let specials = SpecialTexts {
            bos: "<bos>".into(),
            eos: "<eos>".into(),
            unk: "<unk>".into(),
            pad: "<pad>".into(),
        };
        ChatTemplate::new("test.jinja", source.as_bytes(), specials).unwrap()
    }

    fn check(cases: &str) {
        let cases: Vec<Case> = serde_json::from_str(cases).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let messages: Vec<Value> = case.messages.iter().map(Value::from_serialize).collect();
            let rendered = template(case.template.as_deref().unwrap_or(GEMMA))
                .render_values(messages, 0, case.add_generation_prompt)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            assert_eq!(rendered, case.rendered, "{}", case.name);
        }
    }

    /// Rendered by transformers 5.23's `render_jinja_template`.
    #[test]
    fn renders_as_the_reference() {
        check(include_str!("template_cases.json"));
    }

    #[test]
    fn renders_the_oracles_chats() {
        let Some(shared) = crate::session::shared::shared() else { return };
        check(&std::fs::read_to_string(shared.join("oracle/chat_cases.json")).unwrap());
    }

    #[test]
    fn messages_are_strings_and_system_text_stays_untrimmed() {
        let messages = [
            Message::text(Role::System, " Be brief. "),
            Message::text(Role::User, "  Hi"),
            Message::text(Role::Model, "Yo \n"),
            Message::text(Role::User, "x"),
        ];
        // reference.md 10.2's example, from the published template.
        assert_eq!(
            template(GEMMA).render(&messages, true).unwrap(),
            "<bos><start_of_turn>user\n Be brief. \n\nHi<end_of_turn>\n\
             <start_of_turn>model\nYo<end_of_turn>\n\
             <start_of_turn>user\nx<end_of_turn>\n<start_of_turn>model\n"
        );
        let source = "{{ messages[0].content is string }}";
        assert_eq!(template(source).render(&messages[1..2], true).unwrap(), "True");
    }

    #[test]
    fn errors_name_source_and_line() {
        let render = |source: &str| {
            template(source)
                .render(&[Message::text(Role::User, "x")], true)
                .unwrap_err()
                .to_string()
        };
        let refused = render("\n\n{{ raise_exception('only ' ~ messages | length) }}");
        assert_eq!(refused, "test.jinja:3: only 1");
        let parse = ChatTemplate::new("t.jinja", b"a\n{% if %}", SpecialTexts::default());
        let parse = parse.err().unwrap().to_string();
        assert!(parse.starts_with("t.jinja:2: syntax error"), "{parse}");
        let roles = [Message::text(Role::User, "x"), Message::text(Role::User, "y")];
        let roles = template(GEMMA).render(&roles, true).unwrap_err().to_string();
        assert!(roles.contains("Conversation roles must alternate"), "{roles}");
    }

    #[test]
    fn a_template_is_bounded() {
        let endless =
            "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let long = "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
        let deep = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        let brackets = "[".repeat(10_000);
        let message = [Message::text(Role::User, "x")];
        let error = |source| template(source).render(&message, true).unwrap_err().to_string();
        assert!(error(endless).contains("steps"));
        assert!(error(long).contains("too long"));
        assert!(error(deep).contains("recursion"));
        let nested = ChatTemplate::new(
            "t",
            format!("{{{{ {brackets} }}}}").as_bytes(),
            SpecialTexts::default(),
        );
        assert!(nested.is_err());
        let big = ChatTemplate::new("t", &vec![b' '; SOURCE_LIMIT + 1], SpecialTexts::default());
        assert!(big.is_err());
        assert!(ChatTemplate::new("t", b"\xff", SpecialTexts::default()).is_err());
    }

    /// Each of these once overflowed the stack, which aborts the program.
    #[test]
    fn a_template_that_nests_without_end_is_no_abort() {
        let room = SOURCE_LIMIT - 40;
        let chain = |first: &str, link: &str, last: &str| {
            format!("{first}{}{last}", link.repeat(room / link.len()))
        };
        let sources = [
            chain("{{ 1", "~1", " }}"),
            chain("{{ 1", "+1", " }}"),
            chain("{{ 1", "|e", " }}"),
            chain("{{ a", ".a", " }}"),
            chain("{{ ", "not ", "1 }}"),
            chain("{{ ", "-", "1 }}"),
            chain("{{ ", "1 if 0 else ", "1 }}"),
            chain("{% if 0 %}", "{% elif 0 %}", "{% endif %}"),
            chain("{{ 1", " and 1", " }}"),
            "{% set n = namespace(x=[]) %}{% for a in range(9999) %}{% for b in range(9999) %}\
             {% set n.x = [n.x] %}{% endfor %}{% endfor %}"
                .to_owned(),
        ];
        for source in sources {
            // Whether it renders is the engine's affair; that this comes back is ours.
            let template = ChatTemplate::new("t", source.as_bytes(), SpecialTexts::default());
            if let Ok(template) = template {
                let _ = template.render(&[Message::text(Role::User, "x")], true);
            }
        }
    }
}
