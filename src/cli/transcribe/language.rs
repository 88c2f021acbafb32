//! Languages by code or name, as the request names them: in English.

use isolang::Language;

/// A language that the user named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// ISO 639-1 where there is one, else 639-3.
    pub code: &'static str,
    /// In English.
    pub name: &'static str,
}

/// The language of a code (ISO 639-1 or 639-3) or an English name, in any case.
///
/// # Errors
/// A message with the nearest code or name.
pub fn language(typed: &str) -> Result<Spoken, String> {
    let wanted = typed.trim().to_lowercase();
    let called = |language: &Language| names(*language).contains(&wanted);
    // Codes before names: there is a language called En.
    let found = Language::from_639_1(&wanted)
        .or_else(|| Language::from_639_3(&wanted))
        .or_else(|| isolang::languages().find(called));
    if let Some(found) = found {
        return Ok(spoken(found));
    }
    let near = isolang::languages()
        // Those with a short code: of the seven thousand others nearly anything is near.
        .filter(|language| language.to_639_1().is_some())
        .flat_map(words)
        .filter(|word| word.len() > 3 || wanted.len() <= 3)
        .map(|word| (strsim::normalized_damerau_levenshtein(&wanted, &word), word))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(match near {
        Some((likeness, word)) if likeness >= 0.5 => {
            let found =
                language(&word).map_or(word, |near| format!("{} ({})", near.name, near.code));
            format!("no language is called so; is {found} meant?")
        }
        _ => "no language is called so; English names and ISO 639 codes (en, fr, eng) are known"
            .to_owned(),
    })
}

/// As [`language`]; `auto` leaves it to the model.
///
/// # Errors
/// As there.
pub fn language_or_auto(typed: &str) -> Result<Option<Spoken>, String> {
    if typed.trim().eq_ignore_ascii_case("auto") { Ok(None) } else { language(typed).map(Some) }
}

fn spoken(language: Language) -> Spoken {
    let code = language.to_639_1().unwrap_or(language.to_639_3());
    Spoken { code, name: plain_name(language) }
}

/// The standard's name without what it adds: `Modern Greek (1453-)` is Greek, `Swahili
/// (macrolanguage)` Swahili.
fn plain_name(language: Language) -> &'static str {
    let name = language.to_name();
    let name = name.split(" (").next().unwrap_or(name);
    match language.to_639_1() {
        Some(_) => name.strip_prefix("Modern ").unwrap_or(name),
        None => name,
    }
}

/// What a language is called, in lower case.
fn names(language: Language) -> [String; 2] {
    [language.to_name(), plain_name(language)].map(str::to_lowercase)
}

/// Its names and codes.
fn words(language: Language) -> impl Iterator<Item = String> {
    let codes = [language.to_639_1(), Some(language.to_639_3())];
    codes.into_iter().flatten().map(str::to_owned).chain(names(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_in_any_case() {
        for typed in ["en", "EN", "eng", "English", "ENGLISH", " english "] {
            assert_eq!(language(typed), Ok(Spoken { code: "en", name: "English" }), "{typed}");
        }
        for (typed, name) in [
            ("el", "Greek"),
            ("greek", "Greek"),
            ("sw", "Swahili"),
            ("zh", "Chinese"),
            ("nb", "Norwegian Bokmål"),
            ("NORWEGIAN BOKMÅL", "Norwegian Bokmål"),
            ("es", "Spanish"),
            ("ms", "Malay"),
            ("he", "Hebrew"),
            ("yue", "Yue Chinese"),
        ] {
            assert_eq!(language(typed).map(|found| found.name), Ok(name), "{typed}");
        }
    }

    #[test]
    fn an_unknown_one_suggests_the_nearest() {
        let said = |typed| language(typed).unwrap_err();
        assert_eq!(said("Englsh"), "no language is called so; is English (en) meant?");
        assert_eq!(said("Portugese"), "no language is called so; is Portuguese (pt) meant?");
        assert_eq!(said("frech"), "no language is called so; is French (fr) meant?");
        assert!(said("§§§§§§§§§§§§").contains("ISO 639"));
    }

    #[test]
    fn auto_is_none() {
        assert_eq!(language_or_auto("Auto"), Ok(None));
        assert_eq!(language_or_auto("fr").unwrap().unwrap().name, "French");
        assert!(language("auto").is_err());
    }
}
