//! The published MatFormer configurations: which smaller models were trained inside E4B.
//!
//! Google DeepMind's list for the "MatFormer Lab" (dataset google/gemma3n-slicing-configs, 16
//! rows), as data; what a configuration does to a model is [`slice`](super::slice)'s matter.

/// The width that one digit of a configuration counts: 4 is 8192 neurons, 8 is 16384.
const UNIT: usize = 2048;
/// Names less alike than this are no suggestion.
const ALIKE: f64 = 0.5;

/// One row of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What this program calls it.
    pub name: &'static str,
    /// What the list calls it.
    pub published: &'static str,
    /// Effective parameters in billions, as the list states them.
    pub parameters: &'static str,
    /// Accuracy on MMLU (the pre-trained model) in per cent, as the list states it.
    pub mmlu: &'static str,
    /// Of each layer of E4B its width in units; `-` is a layer left out.
    digits: &'static str,
}

macro_rules! configurations {
    ($($name:literal $published:literal $parameters:literal $mmlu:literal $digits:literal;)*) => {
        [$(Configuration {
            name: $name,
            published: $published,
            parameters: $parameters,
            mmlu: $mmlu,
            digits: $digits,
        }),*]
    };
}

/// The list, in its order. The row named "E3.79B (block-level)" states 3.74 B: kept as published.
#[rustfmt::skip]
pub static CONFIGURATIONS: [Configuration; 16] = configurations! {
    "e4b" "Main model" "3.98" "62.30" "88888888888888888888888888888888888";
    "e2b" "Config for official E2B Model" "1.91" "50.90" "44444444444444444444-----4444444444";
    "e1.96b-layer" "Config for E1.96B (layer-level)" "1.96" "53.40" "44448444444444444444-----4444444444";
    "e2.54b-layer" "Config for E2.54B (layer-level)" "2.54" "55.40" "44448444444444444444888884444444444";
    "e2.69b-layer" "Config for E2.69B (layer-level)" "2.69" "57.70" "44448444484444844448888884444444444";
    "e2.98b-layer" "Config for E2.98B (layer-level)" "2.98" "59.50" "44444444444444488888888884444488888";
    "e3.18b-layer" "Config for E3.18B (layer-level)" "3.18" "61.80" "44448444488888888888888884444844448";
    "e3.39b-layer" "Config for E3.39B (layer-level)" "3.39" "63.00" "44448444488888888888888888888844448";
    "e3.59b-layer" "Config for E3.59B (layer-level)" "3.59" "63.40" "44448888888888888888888888888844448";
    "e3.79b-layer" "Config for E3.79B (layer-level)" "3.79" "63.40" "44448888888888888888888888888888888";
    "e2.49b-block" "Config for E2.49B (block-level)" "2.49" "54.50" "44444444444444444444888884444444444";
    "e2.73b-block" "Config for E2.73B (block-level)" "2.73" "57.10" "44444444444444488888888884444444444";
    "e2.98b-block" "Config for E2.98B (block-level)" "2.98" "59.50" "44444444448888888888888884444444444";
    "e3.24b-block" "Config for E3.24B (block-level)" "3.24" "60.70" "44444444448888888888888888888844444";
    "e3.49b-block" "Config for E3.49B (block-level)" "3.49" "61.40" "44444888888888888888888888888844444";
    "e3.79b-block" "Config for E3.79B (block-level)" "3.74" "62.00" "44444888888888888888888888888888888";
};

impl Configuration {
    /// Of each layer of E4B the width it keeps; nothing for one that is left out.
    pub fn widths(&self) -> Vec<Option<usize>> {
        self.digits.chars().map(|c| c.to_digit(10).map(|n| n as usize * UNIT)).collect()
    }

    /// Layers that stay.
    pub fn layers(&self) -> usize {
        self.widths().iter().flatten().count()
    }
}

/// Why a name is not that of one configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{name:?} could be {}", .candidates.join(" or "))]
    Several { name: String, candidates: Vec<&'static str> },
    #[error("there is no slice {name:?}{}", nearest_name(.nearest))]
    Unknown { name: String, nearest: Option<&'static str> },
}

fn nearest_name(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; the nearest is {name}"))
}

/// The configuration of this name, ours or the list's; case does not matter. `-layer` and
/// `-block` can be left out where only one has the size.
///
/// # Errors
/// No configuration, or more than one, is meant.
pub fn find(name: &str) -> Result<&'static Configuration, NameError> {
    let wanted = name.trim().to_lowercase();
    let is = |c: &&Configuration| c.name == wanted || c.published.to_lowercase() == wanted;
    if let Some(found) = CONFIGURATIONS.iter().find(is) {
        return Ok(found);
    }
    let size = |c: &&Configuration| {
        c.name
            .strip_prefix(wanted.as_str())
            .is_some_and(|rest| rest == "-layer" || rest == "-block")
    };
    let candidates: Vec<_> = CONFIGURATIONS.iter().filter(size).collect();
    match candidates[..] {
        [one] => return Ok(one),
        [] => {}
        _ => {
            let candidates = candidates.iter().map(|c| c.name).collect();
            return Err(NameError::Several { name: name.to_owned(), candidates });
        }
    }
    let likeness = |c: &&Configuration| strsim::normalized_damerau_levenshtein(c.name, &wanted);
    let nearest = CONFIGURATIONS
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|c| likeness(c) >= ALIKE)
        .map(|c| c.name);
    Err(NameError::Unknown { name: name.to_owned(), nearest })
}

/// How a model relates to the published configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// The configuration that the model is.
    pub is: Option<&'static str>,
    /// Smaller ones that can be cut out of it.
    pub inside: Vec<&'static str>,
}

/// Compares FFN widths, one a layer, with the configurations.
pub fn relation(widths: &[u64]) -> Relation {
    let mut found = Relation::default();
    for configuration in &CONFIGURATIONS {
        let all = configuration.widths();
        let kept: Vec<_> = all.iter().copied().filter(Option::is_some).collect();
        let is = |width: Option<usize>, has: u64| width.is_some_and(|width| width as u64 == has);
        let fits = |width: Option<usize>, has: u64| width.is_none_or(|width| width as u64 <= has);
        let every = |wanted: &[Option<usize>], holds: &dyn Fn(Option<usize>, u64) -> bool| {
            wanted.len() == widths.len()
                && wanted.iter().zip(widths).all(|(&wanted, &has)| holds(wanted, has))
        };
        if every(&kept, &is) {
            found.is = Some(configuration.name);
        } else if every(&all, &fits) || every(&kept, &fits) {
            found.inside.push(configuration.name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_big_model_holds_all_others_and_the_small_one_none() {
        let big = relation(&[16384; 35]);
        assert_eq!((big.is, big.inside.len()), (Some("e4b"), 15));
        assert_eq!(relation(&[8192; 30]), Relation { is: Some("e2b"), inside: Vec::new() });
        assert_eq!(relation(&[8192; 35]), Relation { is: None, inside: vec!["e2b"] });
        assert_eq!(relation(&[4096; 30]), Relation::default());
    }

    #[test]
    fn a_slice_is_recognised_by_its_widths() {
        // "Config for E2.49B (block-level)": layers 20 to 24 are wide.
        let mut widths = [8192; 35];
        widths[20..25].fill(16384);
        let found = relation(&widths);
        assert_eq!(found, Relation { is: Some("e2.49b-block"), inside: vec!["e2b"] });
        // "Config for E1.96B (layer-level)": 30 layers, the fifth is wide.
        let mut widths = [8192; 30];
        widths[4] = 16384;
        let found = relation(&widths);
        assert_eq!(found, Relation { is: Some("e1.96b-layer"), inside: vec!["e2b"] });
    }

    #[test]
    fn names_are_found_as_people_write_them() {
        let name = |text: &str| find(text).map(|c| c.name);
        assert_eq!(name("E2B"), Ok("e2b"));
        assert_eq!(name("config for e2.54b (Layer-level)"), Ok("e2.54b-layer"));
        assert_eq!(name("Main model"), Ok("e4b"));
        assert_eq!(name("e1.96b"), Ok("e1.96b-layer"));
        let both = name("e2.98b").unwrap_err().to_string();
        assert_eq!(both, "\"e2.98b\" could be e2.98b-layer or e2.98b-block");
        let unknown = name("e2.45b-block").unwrap_err().to_string();
        assert_eq!(unknown, "there is no slice \"e2.45b-block\"; the nearest is e2.49b-block");
        assert_eq!(name("").unwrap_err().to_string(), "there is no slice \"\"");
    }
}
