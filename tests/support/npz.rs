//! The oracle's `.npz` files as [`Reference`] values.
//!
//! An `.npz` is a zip of `.npy` arrays. What becomes what:
//!
//! - `input_ids` [T] or [B, T] → `tokens`; with B > 1 one reference for each row, without the
//!   positions that `attention_mask` [B, T] blanks on the left;
//! - `name.at` → the tap `name`, its token axis holding the rows of `positions` (sound: of
//!   `features_rows`, `conv_0_rows`, `conv_1_rows` or `sub_rows`);
//! - `greedy_ids`, `greedy_margin`, `greedy_logits` lose their batch axis [B, …];
//! - prompts as text (`…_utf8…`) are left out; integers and flags become F32.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use gemma3n::verify::reference::{Reference, Tap};

/// One `.npy` of an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub name: String,
    /// numpy's name of the element type, such as `float32`.
    pub dtype: &'static str,
    /// numpy's order: the slowest dimension first.
    pub shape: Vec<usize>,
    pub values: Values,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    F32(Vec<f32>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    Bool(Vec<bool>),
}

impl Values {
    fn floats(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::I32(values) => values.iter().map(|value| *value as f32).collect(),
            Self::U8(values) => values.iter().map(|value| f32::from(*value)).collect(),
            Self::Bool(values) => values.iter().map(|value| f32::from(u8::from(*value))).collect(),
        }
    }
}

/// All arrays of one archive, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Npz(pub Vec<Array>);

impl Npz {
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let mut zip = zip::ZipArchive::new(BufReader::new(file))
            .with_context(|| path.display().to_string())?;
        let mut arrays = Vec::with_capacity(zip.len());
        for i in 0..zip.len() {
            let entry = zip.by_index(i)?;
            let entry_name = entry.name()?.into_owned();
            let name = npyz::npz::array_name_from_file_name(&entry_name);
            let name =
                name.with_context(|| format!("{}: {entry_name} is not an array", path.display()))?;
            arrays.push(
                read_array(name, entry).with_context(|| format!("{}: {name}", path.display()))?,
            );
        }
        Ok(Self(arrays))
    }

    pub fn get(&self, name: &str) -> Option<&Array> {
        self.0.iter().find(|array| array.name == name)
    }

    fn ints(&self, name: &str) -> Result<Option<(&[usize], &[i32])>> {
        match self.get(name) {
            None => Ok(None),
            Some(Array { shape, values: Values::I32(values), .. }) => Ok(Some((shape, values))),
            Some(array) => bail!("{name}: expected int32, found {}", array.dtype),
        }
    }

    fn positions(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some((_, values)) = self.ints(name)? else { return Ok(None) };
        let positions =
            values.iter().map(|value| usize::try_from(*value)).collect::<Result<_, _>>();
        Ok(Some(positions.with_context(|| name.to_owned())?))
    }

    /// The references that this archive holds: one, or one for each row of a batch.
    pub fn references(&self, case: &str) -> Result<Vec<Reference>> {
        let Some((shape, ids)) = self.ints("input_ids")? else {
            return Ok(vec![self.reference(case, 0, Vec::new())?]);
        };
        let [batch, width] = match *shape {
            [width] => [1, width],
            [batch, width] => [batch, width],
            _ => bail!("input_ids: unexpected shape {shape:?}"),
        };
        let mask = self.ints("attention_mask")?.map(|(_, mask)| mask);
        let mut references = Vec::with_capacity(batch);
        for row in 0..batch {
            let row_of = |values: &[i32]| values[row * width..(row + 1) * width].to_vec();
            let padding =
                mask.map_or(0, |mask| row_of(mask).iter().take_while(|on| **on == 0).count());
            let tokens = row_of(ids).split_off(padding);
            let case = if batch == 1 { case.to_owned() } else { format!("{case}_row{row}") };
            references.push(self.reference(&case, row, tokens)?);
        }
        Ok(references)
    }

    fn reference(&self, case: &str, row: usize, tokens: Vec<i32>) -> Result<Reference> {
        let mut reference = Reference { case: case.to_owned(), tokens, ..Reference::default() };
        reference.greedy_steps = self.positions("greedy_steps")?.unwrap_or_default();
        if let Some((shape, ids)) = self.ints("greedy_ids")? {
            let steps = shape[shape.len() - 1];
            reference.greedy_ids = ids[row * steps..(row + 1) * steps].to_vec();
        }
        for array in &self.0 {
            if is_tap(&array.name) {
                let tap = self.tap(array, row, reference.tokens.len());
                reference.taps.push(tap.with_context(|| array.name.clone())?);
            }
        }
        reference.check(case)?;
        Ok(reference)
    }

    fn tap(&self, array: &Array, row: usize, tokens: usize) -> Result<Tap> {
        let batch = match self.ints("input_ids")? {
            Some((&[batch, _], _)) => batch,
            _ => 1,
        };
        let mut data = array.values.floats();
        let mut shape = array.shape.clone();
        // What the reference kept for a whole batch: [B, …]. `logits_last` loses the axis when B is 1.
        if array.name.starts_with("greedy_") || batch > 1 {
            ensure!(shape.first() == Some(&batch), "shape {shape:?} for a batch of {batch}");
            shape.remove(0);
            let size = data.len() / batch;
            data = data[row * size..(row + 1) * size].to_vec();
        }
        let (name, mut rows) = match array.name.strip_suffix(".at") {
            Some(name) => (name, Some(self.sampled_rows(name)?)),
            None => (array.name.as_str(), None),
        };
        if name == "logits_last" {
            if batch > 1 {
                shape.insert(0, 1);
            }
            ensure!(shape[0] <= tokens, "{} rows for {tokens} tokens", shape[0]);
            rows = Some((tokens - shape[0]..tokens).collect());
        }
        shape.reverse();
        Ok(Tap { name: name.to_owned(), ne: shape, rows, data })
    }

    /// Which rows a sub-sampled tap holds.
    fn sampled_rows(&self, tap: &str) -> Result<Vec<usize>> {
        let (clip, leaf) = match tap.split_once('.') {
            Some((clip, leaf)) if clip.starts_with("clip") => (format!("{clip}."), leaf),
            _ => (String::new(), tap),
        };
        let list = match leaf {
            _ if self.get("positions").is_some() => "positions".to_owned(),
            "features" | "conv_0" | "conv_1" => format!("{clip}{leaf}_rows"),
            _ => format!("{clip}sub_rows"),
        };
        self.positions(&list)?.with_context(|| format!("there is no array {list}"))
    }
}

/// Whether an array is a recorded value, not a description of the case.
fn is_tap(name: &str) -> bool {
    let described = ["input_ids", "attention_mask", "positions", "greedy_ids", "greedy_steps"];
    !described.contains(&name) && !name.ends_with("_rows") && !name.contains("_utf8")
}

fn read_array(name: &str, entry: impl Read) -> Result<Array> {
    let npy = npyz::NpyFile::new(entry)?;
    ensure!(npy.order() == npyz::Order::C, "is in Fortran order");
    let shape = npy.shape().iter().map(|n| usize::try_from(*n)).collect::<Result<_, _>>()?;
    let (dtype, values) = match npy.dtype().descr().trim_matches('\'') {
        "<f4" => ("float32", Values::F32(npy.into_vec()?)),
        "<i4" => ("int32", Values::I32(npy.into_vec()?)),
        "|u1" => ("uint8", Values::U8(npy.into_vec()?)),
        "|b1" => ("bool", Values::Bool(npy.into_vec()?)),
        other => bail!("element type {other} is not expected"),
    };
    Ok(Array { name: name.to_owned(), dtype, shape, values })
}
