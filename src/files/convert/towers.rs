//! A checkpoint's towers → a plan for their GGUF file, which llama.cpp calls mmproj.
//!
//! Types: vectors, the stem and convolutions over sound are F32, all others what was asked for.
//! Kernels (four dimensions) can't be quantized, since their rows are one to five elements; they
//! are F16 then, and so are matrices whose rows are no whole blocks. Kernels keep PyTorch's order;
//! gammas and the stem's bias are written as `[1, 1, C, 1]`, which is how llama.cpp's graph can
//! multiply a feature map by them.

mod metadata;

use std::collections::BTreeMap;

use crate::checkpoint::towers::names::{self, Modality};
use crate::checkpoint::towers::{self as tables, Expected, Fault, Tensors, VisionTower};
use crate::checkpoint::{self, AudioConfig, Checkpoint, VisionConfig};
use crate::files::error::Error;
use crate::files::plan::{Part, Plan, PlannedTensor, Segment, Stored};
use crate::files::source::tensor_type;
use crate::gguf::{TensorPlan, TensorType};

/// Why the text model's file has no tensors of towers.
pub const LEFT_OUT: &str = "a tower's";

/// The towers of a checkpoint with what they are told by.
struct Towers {
    vision: Option<VisionConfig>,
    audio: Option<AudioConfig>,
}

/// Plans the towers' file; `None` where the checkpoint has no towers.
///
/// # Errors
/// A tensor that is missing, misshapen, of a type that isn't read, or no part of its tower; a
/// configuration that says something impossible.
pub fn plan(checkpoint: &Checkpoint, ty: TensorType) -> Result<Option<Plan>, Error> {
    let vision = Found::of(checkpoint, Modality::Vision)?;
    let audio = Found::of(checkpoint, Modality::Audio)?;
    let mut towers = Towers { vision: None, audio: None };
    let mut tensors = Vec::new();
    if !audio.names.is_empty() {
        let config = checkpoint.audio()?;
        tensors.extend(audio.planned(&config.tower.expected(), ty)?);
        towers.audio = Some(config);
    }
    if !vision.names.is_empty() {
        let config = checkpoint.vision()?;
        let tower = vision.tower(&config)?;
        tensors.extend(vision.planned(&tower.expected(), ty)?);
        towers.vision = Some(config);
    }
    if tensors.is_empty() {
        return Ok(None);
    }
    let mut notices = Vec::new();
    if ty == TensorType::BF16 && towers.vision.is_some() {
        notices.push("llama.cpp can't run BF16 kernels of the picture tower on a CPU".to_owned());
    }
    let metadata = metadata::metadata(checkpoint, &towers, ty, &tensors);
    Ok(Some(Plan { metadata, tensors, left_out: Vec::new(), notices }))
}

/// The checkpoint's tensors of one tower.
struct Found<'a> {
    checkpoint: &'a Checkpoint,
    modality: Modality,
    /// Name in GGUF → name in the checkpoint.
    names: BTreeMap<String, &'a str>,
}

impl<'a> Found<'a> {
    fn of(checkpoint: &'a Checkpoint, modality: Modality) -> Result<Self, Error> {
        let weights = &checkpoint.weights;
        let mut found = BTreeMap::new();
        for (name, stored) in weights.iter() {
            if names::modality(name) != Some(modality) {
                continue;
            }
            let path = || weights.path(stored).to_owned();
            let tensor = name.to_owned();
            let Some(gguf) = names::gguf_name(name) else {
                let model = shown(modality);
                let error =
                    checkpoint::Error::UnknownTensor { path: path(), tensor, model, others: 0 };
                return Err(error.into());
            };
            if let Some(other) = found.insert(gguf, name) {
                let other = other.to_owned();
                return Err(checkpoint::Error::SameTensor { path: path(), tensor, other }.into());
            }
        }
        Ok(Self { checkpoint, modality, names: found })
    }

    /// Names in GGUF and shapes in ggml's order.
    fn shapes(&self) -> Result<Tensors, Error> {
        let shape = |(gguf, name): (&String, &&str)| {
            let stored = self.checkpoint.weights.find(name)?;
            Ok((gguf.clone(), stored.shape.iter().rev().copied().collect()))
        };
        self.names.iter().map(shape).collect()
    }

    /// The picture tower that the tensors make, of the width that the configuration says.
    fn tower(&self, config: &VisionConfig) -> Result<VisionTower, Error> {
        let read = VisionTower::read(&self.shapes()?);
        let tower = read.map_err(|fault| self.named(&fault))?;
        Ok(VisionTower {
            width: config.width.into(),
            vocab: config.vocab_size.into(),
            text: self.checkpoint.config.embedding_length.into(),
            ..tower
        })
    }

    /// The tower's tensors, after checking them as a whole.
    fn planned(&self, expected: &[Expected], ty: TensorType) -> Result<Vec<PlannedTensor>, Error> {
        tables::check(expected, &self.shapes()?).map_err(|fault| self.named(&fault))?;
        expected.iter().map(|tensor| self.planned_tensor(tensor, ty)).collect()
    }

    fn planned_tensor(&self, expected: &Expected, ty: TensorType) -> Result<PlannedTensor, Error> {
        let mut ne = [1; 4];
        ne[..expected.ne.len()].copy_from_slice(&expected.ne);
        let target = TensorPlan {
            name: expected.name.clone(),
            ne,
            n_dims: expected.ne.len() as u32,
            ty: type_of(expected, ty),
        };
        let segment = match self.names.get(&expected.name) {
            None => Segment::Fill { value: 0.0, elements: ne.iter().product() },
            Some(name) => {
                let weights = &self.checkpoint.weights;
                let stored = weights.find(name)?;
                let row_len = stored.shape.last().copied().unwrap_or(1);
                Segment::Stored(Stored {
                    name: (*name).to_owned(),
                    ty: tensor_type(weights.float(name, stored)?),
                    row_len,
                    rows: stored.elements().checked_div(row_len).unwrap_or(0),
                    part: Part::All,
                })
            }
        };
        Ok(PlannedTensor::new(target, vec![segment]))
    }

    /// A fault by the tensor's name and shape in the checkpoint.
    fn named(&self, fault: &Fault) -> Error {
        let weights = &self.checkpoint.weights;
        let name = |gguf: &str| match self.names.get(gguf) {
            Some(name) => (*name).to_owned(),
            None => names::checkpoint_name(gguf),
        };
        let path = |tensor: &str| match weights.find(tensor) {
            Ok(stored) => weights.path(stored).to_owned(),
            Err(_) => std::path::PathBuf::new(),
        };
        let shape = |ne: &tables::Ne| {
            let sizes: Vec<_> = ne.0.iter().rev().copied().collect();
            super::shown(&sizes)
        };
        let error = match fault {
            Fault::Missing { name: gguf } => weights.missing(&name(gguf)),
            Fault::Shape { name: gguf, expected, found } => {
                let tensor = name(gguf);
                checkpoint::Error::Shape {
                    path: path(&tensor),
                    expected: shape(expected),
                    found: shape(found),
                    tensor,
                }
            }
            Fault::Multiple { name: gguf, size, of } => {
                let tensor = name(gguf);
                checkpoint::Error::Multiple { path: path(&tensor), tensor, size: *size, of: *of }
            }
            Fault::Unknown { name: gguf, others } => {
                let (path, tensor) = (path(&name(gguf)), name(gguf));
                let (model, others) = (shown(self.modality), *others);
                checkpoint::Error::UnknownTensor { path, tensor, model, others }
            }
        };
        error.into()
    }
}

fn shown(modality: Modality) -> &'static str {
    match modality {
        Modality::Vision => "picture tower",
        Modality::Audio => "sound tower",
    }
}

/// What a tensor is written as when the file's type is `ty`.
fn type_of(tensor: &Expected, ty: TensorType) -> TensorType {
    if tensor.always_f32 {
        return TensorType::F32;
    }
    let whole_blocks = tensor.ne.len() == 2 && tensor.ne[0].is_multiple_of(ty.block_len());
    if ty.is_quantized() && !whole_blocks { TensorType::F16 } else { ty }
}
