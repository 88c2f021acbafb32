//! MatFormer slices: which of the published configurations lie inside a model.
//!
//! A layer of width F′ < F is the first F′ neurons of the layer; whole layers may be left out.
//! The configurations are Google DeepMind's (dataset google/gemma3n-slicing-configs, 16 rows).

/// The width that one digit of a configuration counts: 4 is 8192 neurons, 8 is 16384.
const UNIT: u64 = 2048;

/// Name, and per layer of E4B its width in units; `-` is a layer left out.
const CONFIGURATIONS: [(&str, &str); 16] = [
    ("e4b", "88888888888888888888888888888888888"),
    ("e2b", "44444444444444444444-----4444444444"),
    ("e1.96b-layer", "44448444444444444444-----4444444444"),
    ("e2.54b-layer", "44448444444444444444888884444444444"),
    ("e2.69b-layer", "44448444484444844448888884444444444"),
    ("e2.98b-layer", "44444444444444488888888884444488888"),
    ("e3.18b-layer", "44448444488888888888888884444844448"),
    ("e3.39b-layer", "44448444488888888888888888888844448"),
    ("e3.59b-layer", "44448888888888888888888888888844448"),
    ("e3.79b-layer", "44448888888888888888888888888888888"),
    ("e2.49b-block", "44444444444444444444888884444444444"),
    ("e2.73b-block", "44444444444444488888888884444444444"),
    ("e2.98b-block", "44444444448888888888888884444444444"),
    ("e3.24b-block", "44444444448888888888888888888844444"),
    ("e3.49b-block", "44444888888888888888888888888844444"),
    ("e3.79b-block", "44444888888888888888888888888888888"),
];

/// How a model relates to the published configurations.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Slices {
    /// The configuration that the model is.
    pub is: Option<&'static str>,
    /// Smaller ones that can be cut out of it.
    pub inside: Vec<&'static str>,
}

/// Compares per-layer FFN widths with the configurations.
pub(super) fn slices(widths: &[u64]) -> Slices {
    let mut found = Slices::default();
    for (name, digits) in CONFIGURATIONS {
        // A digit's width; none for a layer left out.
        let all: Vec<Option<u64>> =
            digits.chars().map(|c| c.to_digit(10).map(|n| u64::from(n) * UNIT)).collect();
        let kept: Vec<u64> = all.iter().flatten().copied().collect();
        let fits = |wanted: &[Option<u64>]| {
            wanted.len() == widths.len()
                && wanted.iter().zip(widths).all(|(want, &has)| want.is_none_or(|w| w <= has))
        };
        if kept == widths {
            found.is = Some(name);
        } else if fits(&all) || fits(&kept.iter().copied().map(Some).collect::<Vec<_>>()) {
            found.inside.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_big_model_holds_all_others_and_the_small_one_none() {
        let big = slices(&[16384; 35]);
        assert_eq!((big.is, big.inside.len()), (Some("e4b"), 15));
        assert_eq!(slices(&[8192; 30]), Slices { is: Some("e2b"), inside: Vec::new() });
        assert_eq!(slices(&[8192; 35]), Slices { is: None, inside: vec!["e2b"] });
        assert_eq!(slices(&[4096; 30]), Slices::default());
    }

    #[test]
    fn a_slice_is_recognised_by_its_widths() {
        // "Config for E2.49B (block-level)": layers 20 to 24 are wide.
        let mut widths = [8192; 35];
        widths[20..25].fill(16384);
        let found = slices(&widths);
        assert_eq!(found, Slices { is: Some("e2.49b-block"), inside: vec!["e2b"] });
        // "Config for E1.96B (layer-level)": 30 layers, the fifth is wide.
        let mut widths = [8192; 30];
        widths[4] = 16384;
        let found = slices(&widths);
        assert_eq!(found, Slices { is: Some("e1.96b-layer"), inside: vec!["e2b"] });
    }
}
