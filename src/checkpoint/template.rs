//! Chat templates: `chat_template.jinja` (and `additional_chat_templates/*.jinja`), else
//! `chat_template.json`, else `tokenizer_config.json`; in the order transformers prefers them.

use std::path::Path;

use serde_json::Value;

use super::error::Error;
use super::json::{CONFIG_LIMIT, Document, Section, TEMPLATE_LIMIT, read_text_if_present};

/// A template; the unnamed one is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub name: Option<String>,
    pub text: String,
}

/// All templates, the default first.
pub fn read(dir: &Path, settings: Option<&Section>) -> Result<Vec<Template>, Error> {
    if let Some(text) = read_text_if_present(&dir.join("chat_template.jinja"), TEMPLATE_LIMIT)? {
        let mut templates = vec![Template { name: None, text }];
        templates.extend(additional(&dir.join("additional_chat_templates"))?);
        return Ok(templates);
    }
    let path = dir.join("chat_template.json");
    if let Some(document) = Document::read_if_present(&path, CONFIG_LIMIT)? {
        let root = document.root();
        return from_key(&root)?.ok_or_else(|| root.missing(KEY));
    }
    let Some(settings) = settings else { return Ok(Vec::new()) };
    Ok(from_key(settings)?.unwrap_or_default())
}

const KEY: &str = "chat_template";

/// One template, or a list of named ones of which `default` is the default.
fn from_key(section: &Section) -> Result<Option<Vec<Template>>, Error> {
    let bad = |value| {
        section.unexpected(KEY, "a template or a list of named ones", super::json::shown(value))
    };
    let Some(value) = section.get(KEY) else { return Ok(None) };
    let mut templates = match value {
        Value::String(text) => vec![Template { name: None, text: text.clone() }],
        Value::Array(named) => named
            .iter()
            .map(|entry| {
                let (name, text) = (entry["name"].as_str(), entry["template"].as_str());
                let (Some(name), Some(text)) = (name, text) else { return Err(bad(entry)) };
                let name = (name != "default").then(|| name.to_owned());
                Ok(Template { name, text: text.to_owned() })
            })
            .collect::<Result<_, _>>()?,
        other => return Err(bad(other)),
    };
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = templates.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let name = twice[0].name.as_deref().unwrap_or("default");
        return Err(section.unexpected(KEY, "each name once", format!("{name} twice")));
    }
    Ok(Some(templates))
}

fn additional(dir: &Path) -> Result<Vec<Template>, Error> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let io = |source| Error::Io { path: dir.to_owned(), source };
    let mut templates = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_none_or(|extension| extension != "jinja") {
            continue;
        }
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        if let Some(text) = read_text_if_present(&path, TEMPLATE_LIMIT)? {
            templates.push(Template { name, text });
        }
    }
    templates.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(templates)
}
