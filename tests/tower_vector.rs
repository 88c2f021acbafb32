//! The towers on weights by formula. First: all 84 blocks of the real tower, a sixteenth as wide, on a picture of 256 pixels: the output is
//! the reference's. Weights and pixels are made by formula, and the expected values were computed by
//! timm 1.0.31 in F64 (reference.md §11.4).

#[path = "tower_vector/audio.rs"]
mod audio;
#[path = "support/formula.rs"]
mod formula;

use std::path::Path;
use std::sync::Arc;

use formula::{Made, stream};
use gemma3n::gguf::{Gguf, Layout};
use gemma3n::model::scope::Kernels;
use gemma3n::model::tower::{EncoderOptions, Precision};
use gemma3n::model::vision::{Encoder, VisionModel};

#[derive(Default)]
struct Tower(Vec<(String, Vec<usize>)>);

impl Tower {
    fn kernel(&mut self, name: String, cout: usize, cin: usize, k: usize) {
        self.0.push((format!("{name}.weight"), vec![cout, cin, k, k]));
    }

    fn vector(&mut self, name: String, n: usize) {
        self.0.push((name, vec![n]));
    }

    /// A convolution with its norm.
    fn normed(&mut self, name: &str, cout: usize, cin: usize, k: usize) {
        self.kernel(format!("{name}.conv"), cout, cin, k);
        self.vector(format!("{name}.bn.weight"), cout);
    }

    fn edge(&mut self, at: &str, cin: usize, cout: usize) {
        self.kernel(format!("{at}.conv_exp"), 4 * cin, cin, 3);
        self.vector(format!("{at}.bn1.weight"), 4 * cin);
        self.kernel(format!("{at}.conv_pwl"), cout, 4 * cin, 1);
        self.vector(format!("{at}.bn2.weight"), cout);
    }

    fn inverted(&mut self, at: &str, [cin, cout]: [usize; 2], [start, mid]: [usize; 2], e: usize) {
        if start > 0 {
            self.normed(&format!("{at}.dw_start"), cin, 1, start);
        }
        self.normed(&format!("{at}.pw_exp"), e * cin, cin, 1);
        if mid > 0 {
            self.normed(&format!("{at}.dw_mid"), e * cin, 1, mid);
        }
        self.normed(&format!("{at}.pw_proj"), cout, e * cin, 1);
        if at != "msfa.ffn" {
            self.vector(format!("{at}.layer_scale.gamma"), cout);
        }
    }

    fn attention(&mut self, at: &str, c: usize, heads: usize, d: usize, reduces: bool) {
        self.vector(format!("{at}.norm.weight"), c);
        self.kernel(format!("{at}.attn.query.proj"), heads * d, c, 1);
        for part in ["key", "value"] {
            if reduces {
                self.kernel(format!("{at}.attn.{part}.down_conv"), c, 1, 3);
                self.vector(format!("{at}.attn.{part}.norm.weight"), c);
            }
            self.kernel(format!("{at}.attn.{part}.proj"), d, c, 1);
        }
        self.kernel(format!("{at}.attn.output.proj"), c, heads * d, 1);
        self.vector(format!("{at}.layer_scale.gamma"), c);
    }

    /// The block list of reference.md §7.4 with 8, 16, 40 and 80 channels.
    fn whole() -> Self {
        let mut t = Self::default();
        t.normed("conv_stem", 64, 3, 3);
        t.vector("conv_stem.conv.bias".into(), 64);
        for (i, cin) in [64, 8, 8].into_iter().enumerate() {
            t.edge(&format!("blocks.0.{i}"), cin, 8);
        }
        t.inverted("blocks.1.0", [8, 16], [3, 5], 6);
        for (i, start) in [5, 3, 5, 3].into_iter().enumerate() {
            t.inverted(&format!("blocks.1.{}", i + 1), [16, 16], [start, 0], 4);
        }
        t.inverted("blocks.2.0", [16, 40], [5, 5], 6);
        for i in 1..=7 {
            t.inverted(&format!("blocks.2.{i}"), [40, 40], [5, 0], 4);
        }
        t.inverted("blocks.2.8", [40, 40], [0, 0], 1);
        for i in (9..=35).step_by(2) {
            t.attention(&format!("blocks.2.{i}"), 40, 12, 64, true);
            t.inverted(&format!("blocks.2.{}", i + 1), [40, 40], [0, 0], 2);
        }
        t.inverted("blocks.3.0", [40, 80], [5, 5], 6);
        for i in (1..=37).step_by(2) {
            t.attention(&format!("blocks.3.{i}"), 80, 16, 96, false);
            t.inverted(&format!("blocks.3.{}", i + 1), [80, 80], [0, 0], 2);
        }
        t.inverted("msfa.ffn", [120, 2048], [0, 0], 2);
        t.vector("msfa.norm.weight".into(), 2048);
        t
    }

    fn write(&self, target: &Path) {
        let mut layout = Layout::new();
        layout.set("general.architecture", "clip");
        layout.set("clip.vision.projector_type", "gemma3nv");
        let own = |name: &str| format!("v.{}", name.replace("blocks.", "blk."));
        let tower = self.0.iter().map(|(name, shape)| Made::by_formula(own(name), name, shape));
        let mut tensors: Vec<Made> = tower.collect();
        tensors.push(Made::ones("mm.input_projection.weight", &[8, 2048]));
        for name in ["mm.embedding.weight", "mm.soft_emb_norm.weight", "mm.hard_emb_norm.weight"] {
            tensors.push(Made::ones(name, &[1, 2048]));
        }
        formula::write(target, layout, &tensors);
    }
}

#[test]
fn the_whole_block_list_gives_the_references_output() {
    assert!(stream("a").zip([0.371_730_92, 0.998_122_27]).all(|(a, b)| (a - b).abs() < 1e-8));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tower.gguf");
    Tower::whole().write(&file);
    let gguf = Arc::new(Gguf::open(&file).unwrap());
    const SIDE: usize = 256;
    let planes: Vec<f32> = stream("pixels").map(|u| u as f32).take(3 * SIDE * SIDE).collect();
    let plane = SIDE * SIDE;
    let pixels: Vec<f32> = (0..3 * plane).map(|i| planes[i % 3 * plane + i / 3]).collect();
    for kernels in [Kernels::Auto, Kernels::Ggml] {
        let model = VisionModel::open(&gguf, 8, Precision::Exact).unwrap();
        let mut encoder = Encoder::new(model, EncoderOptions { threads: 1, kernels });
        let taps = encoder.trace(&pixels, SIDE).unwrap();
        let blocks = taps.iter().filter(|tap| {
            let numbers = tap.name.strip_prefix("block").map(|rest| rest.split('.').count());
            numbers == Some(2)
        });
        assert_eq!(blocks.count(), 84);
        let msfa = taps.iter().find(|tap| tap.name == "msfa").unwrap();
        assert_eq!(msfa.ne[..2], [2048, 256]);
        // [channel][row][column] of [2048, 16, 16]
        for ([channel, row, column], expected) in [
            ([0, 0, 0], -0.231_608_9f32),
            ([1, 3, 5], -0.793_730_7),
            ([777, 15, 15], -0.145_430_9),
            ([2047, 8, 0], -0.596_379_5),
        ] {
            let found = msfa.values[(row * 16 + column) * 2048 + channel];
            assert!((found - expected).abs() < 2e-5, "{channel} {row} {column}: {found}");
        }
    }
}
