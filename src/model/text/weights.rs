//! The text model's tensors: each one checked against the shape that the config gives it, then
//! used where it lies in the mapping. Names and shapes: gguf.md §3; order of `ne`: ggml's.

use std::sync::Arc;

use crate::ggml::{Stored, Type};
use crate::gguf::{Gguf, Tensor};
use crate::model::config::{FFN_DOWN_T, TextConfig};
use crate::model::error::{Fault, OpenError};
use crate::model::slice::Cut;
use crate::model::text::table::Table;

/// All weights. Tensors that this model does not know are passed over.
pub struct TextWeights {
    /// `[E, V]`: embeddings, and the head unless the file has another.
    pub token_embd: Table,
    /// `[P·L, V']`: read row by row, never as a whole.
    pub per_layer_token_embd: Table,
    /// `[E, P·L]`
    pub per_layer_model_proj: Stored,
    /// `[P]`
    pub per_layer_proj_norm: Stored,
    /// `[E, E, A−1]`
    pub altup_proj: Stored,
    /// `[E, E, A−1]`
    pub altup_unembd_proj: Stored,
    /// `[E]`
    pub output_norm: Stored,
    /// `[E, V]`: `output.weight`, else the embeddings.
    pub output: Stored,
    pub layers: Vec<LayerWeights>,
}

/// A layer's weights; `K/V` only where the layer owns them.
pub struct LayerWeights {
    pub altup_router: Stored,
    pub altup_router_norm: Stored,
    pub altup_predict_coef: Stored,
    pub altup_correct_coef: Stored,
    pub altup_correct_scale: Stored,
    pub attn_norm: Stored,
    pub laurel_l: Stored,
    pub laurel_r: Stored,
    pub laurel_post_norm: Stored,
    pub attn_q: Stored,
    pub attn_q_norm: Stored,
    pub kv: Option<KvWeights>,
    pub attn_output: Stored,
    pub post_attention_norm: Stored,
    pub ffn_norm: Stored,
    pub ffn_gate: Stored,
    pub ffn_up: Stored,
    pub ffn_down: Down,
    pub post_ffw_norm: Stored,
    pub inp_gate: Stored,
    pub proj: Stored,
    pub post_norm: Stored,
}

/// `ffn_down` as the file has it.
pub enum Down {
    /// `[F, E]`, as every program writes it: a row is what an output takes from the neurons.
    Outputs(Stored),
    /// `[E, F]`, `gemma3n.cli.layout` = 1: a row is what a neuron gives to the outputs.
    Neurons(Stored),
}

pub struct KvWeights {
    pub k: Stored,
    pub k_norm: Stored,
    pub v: Stored,
}

impl TextWeights {
    /// Finds and checks every tensor of the model.
    ///
    /// # Errors
    /// A tensor that is missing, has another shape than the config says, or a type that cannot
    /// be used where it stands.
    pub fn open(gguf: &Arc<Gguf>, cut: &Cut) -> Result<Self, OpenError> {
        let loader = Loader { gguf, cut };
        let c = &cut.config;
        let (e, per_layer_row) = (c.embedding, c.per_layer * cut.whole);
        let token_embd = loader.table("token_embd.weight", e, c.vocabulary)?;
        let table = loader.find("per_layer_token_embd.weight")?;
        let mut per_layer_token_embd =
            loader.table("per_layer_token_embd.weight", per_layer_row, table.ne[1] as usize)?;
        per_layer_token_embd.read_here_and_there();
        let output = match gguf.tensor("output.weight") {
            Some(_) => loader.matrix("output.weight", &[e, c.vocabulary])?,
            None => loader.matrix("token_embd.weight", &[e, c.vocabulary])?,
        };
        let layers = (0..c.layers).map(|il| loader.layer(c, il)).collect::<Result<_, _>>()?;
        Ok(Self {
            token_embd,
            per_layer_token_embd,
            per_layer_model_proj: loader.per_layer_model_proj(per_layer_row)?,
            per_layer_proj_norm: loader.small("per_layer_proj_norm.weight", &[c.per_layer])?,
            altup_proj: loader.matrix("altup_proj.weight", &[e, e, c.streams - 1])?,
            altup_unembd_proj: loader.matrix("altup_unembd_proj.weight", &[e, e, c.streams - 1])?,
            output_norm: loader.small("output_norm.weight", &[e])?,
            output,
            layers,
        })
    }
}

impl TextWeights {
    /// Bytes that one decoded token reads: every weight once, of `up` and of a neuron-major `down`
    /// in sparse layers the share of neurons that survives on normally distributed gates, one row
    /// of each table.
    pub fn bytes_per_token(&self, config: &TextConfig) -> usize {
        let layer = |(il, w): (usize, &LayerWeights)| {
            let kv = w.kv.iter().map(|kv| kv.k.len() + kv.v.len()).sum::<usize>();
            let surviving = |w: &Stored| match config.sparsity[il] {
                Some(z) => (w.len() as f64 * normal_tail(z)) as usize,
                None => w.len(),
            };
            let up = surviving(&w.ffn_up);
            let down = match &w.ffn_down {
                Down::Outputs(w) => w.len(),
                Down::Neurons(w) => surviving(w),
            };
            let whole = [
                &w.altup_router,
                &w.laurel_l,
                &w.laurel_r,
                &w.attn_q,
                &w.attn_output,
                &w.ffn_gate,
                &w.inp_gate,
                &w.proj,
            ];
            kv + up + down + whole.map(Stored::len).iter().sum::<usize>()
        };
        let globals =
            [&self.per_layer_model_proj, &self.altup_proj, &self.altup_unembd_proj, &self.output];
        let groups = self.per_layer_token_embd.bytes_of(config.per_layer * config.layers);
        let rows = self.token_embd.row_bytes() + groups;
        self.layers.iter().enumerate().map(layer).sum::<usize>()
            + globals.map(Stored::len).iter().sum::<usize>()
            + rows
    }
}

/// The share of a normal distribution above z standard deviations.
fn normal_tail(z: f32) -> f64 {
    0.5 * libm::erfc(f64::from(z) * std::f64::consts::FRAC_1_SQRT_2)
}

struct Loader<'a> {
    gguf: &'a Arc<Gguf>,
    /// Which part of the file's model is wanted.
    cut: &'a Cut,
}

impl Loader<'_> {
    fn fault(&self, fault: Fault) -> OpenError {
        OpenError::Model { file: self.gguf.path().to_path_buf(), fault }
    }

    fn find(&self, name: &str) -> Result<&Tensor, OpenError> {
        self.gguf.tensor(name).ok_or_else(|| self.fault(Fault::MissingTensor(name.to_owned())))
    }

    /// The tensor, if it has the expected shape and a type ggml can multiply with.
    fn checked(&self, name: &str, expected: &[usize]) -> Result<(&Tensor, Type), OpenError> {
        let tensor = self.find(name)?;
        let padded = |i: usize| expected.get(i).map_or(1, |&n| n as u64);
        if (0..4).any(|i| tensor.ne[i] != padded(i)) {
            let shown = (tensor.n_dims as usize).max(expected.len()).clamp(1, 4);
            return Err(self.fault(Fault::Shape {
                name: name.to_owned(),
                expected: expected.iter().map(|&n| n as u64).collect(),
                found: tensor.ne[..shown].to_vec(),
            }));
        }
        match Type::weight_from_id(tensor.ty.id()) {
            Some(ty) => Ok((tensor, ty)),
            None => Err(self.wrong_type(tensor, "a weight")),
        }
    }

    fn wrong_type(&self, tensor: &Tensor, role: &'static str) -> OpenError {
        let (name, found) = (tensor.name.clone(), tensor.ty.name().to_owned());
        self.fault(Fault::Type { name, found, role })
    }

    /// A matrix, used where it lies.
    fn matrix(&self, name: &str, expected: &[usize]) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.checked(name, expected)?;
        self.part(tensor, ty, 0, tensor.ne[1] as usize)
    }

    /// Rows of a matrix (of all its rows where it has a third dimension), used where they lie.
    fn part(
        &self,
        tensor: &Tensor,
        ty: Type,
        first: usize,
        rows: usize,
    ) -> Result<Stored, OpenError> {
        let ne = [tensor.ne[0] as usize, rows, tensor.ne[2] as usize, tensor.ne[3] as usize];
        let row_bytes = ty.row_bytes(ne[0]);
        let range = first * row_bytes..first * row_bytes + row_bytes * rows * ne[2] * ne[3];
        let mapped = Stored::over(self.gguf, ty, ne, |gguf| &gguf.data(tensor)[range.clone()]);
        // A file whose tensors are not aligned is legal and rare: its weights are copied.
        let copied = || Stored::copied(ty, ne, &self.gguf.data(tensor)[range.clone()]);
        let stored = mapped.or_else(copied).ok_or_else(|| self.no_memory(tensor, range.len()))?;
        Ok(self.named(stored, tensor))
    }

    /// With the name that a file of the cut has for it: statistics of a slice are a smaller
    /// model's.
    fn named(&self, stored: Stored, tensor: &Tensor) -> Stored {
        match self.cut.rename(&tensor.name) {
            Some(name) => stored.named(&name),
            None => stored,
        }
    }

    /// The first `width` columns of a matrix `expected`: its rows where they lie, further apart
    /// than they are long.
    fn columns(&self, name: &str, expected: [usize; 2], width: usize) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.checked(name, &expected)?;
        let [full, rows] = expected;
        if width == full {
            return self.matrix(name, &expected);
        }
        let (stride, row_bytes) = (ty.row_bytes(full), ty.row_bytes(width));
        let (ne, end) = ([width, rows, 1, 1], stride * (rows - 1) + row_bytes);
        let mapped = Stored::over_rows(self.gguf, ty, ne, stride, |gguf| &gguf.data(tensor)[..end]);
        let copied = || {
            let rows = self.gguf.data(tensor).chunks_exact(stride).map(|row| &row[..row_bytes]);
            Stored::gathered(ty, ne, rows)
        };
        let stored = mapped.or_else(copied);
        let stored = stored.ok_or_else(|| self.no_memory(tensor, row_bytes * rows))?;
        Ok(self.named(stored, tensor))
    }

    /// The first `rows` rows of a matrix `expected`.
    fn rows(&self, name: &str, expected: [usize; 2], rows: usize) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.checked(name, &expected)?;
        self.part(tensor, ty, 0, rows)
    }

    /// `[E, P·layers]` out of `[E, file_rows]`. The groups of layers that are not neighbours are
    /// copied: every token reads the whole of it, so that no more of it is in memory than before.
    fn per_layer_model_proj(&self, file_rows: usize) -> Result<Stored, OpenError> {
        let c = &self.cut.config;
        let (tensor, ty) =
            self.checked("per_layer_model_proj.weight", &[c.embedding, file_rows])?;
        let runs = self.cut.runs(0..c.layers);
        if let [run] = &runs[..] {
            return self.part(tensor, ty, run.start * c.per_layer, run.len() * c.per_layer);
        }
        let bytes = |layers: usize| layers * c.per_layer * ty.row_bytes(c.embedding);
        let data = self.gguf.data(tensor);
        let groups = runs.iter().map(|run| &data[bytes(run.start)..bytes(run.end)]);
        let stored = Stored::gathered(ty, [c.embedding, c.layers * c.per_layer, 1, 1], groups);
        let stored = stored.ok_or_else(|| self.no_memory(tensor, bytes(c.layers)))?;
        Ok(self.named(stored, tensor))
    }

    fn no_memory(&self, tensor: &Tensor, bytes: usize) -> OpenError {
        self.fault(Fault::Memory { name: tensor.name.clone(), bytes })
    }

    /// Norm weights and the little AltUp matrices, as f32: exact for F16 and BF16, and what
    /// rounds activations otherwise (ggml's F16 product) does not come near them.
    fn small(&self, name: &str, expected: &[usize]) -> Result<Stored, OpenError> {
        let (tensor, ty) = self.checked(name, expected)?;
        if ty == Type::F32 {
            return self.matrix(name, expected);
        }
        let ne = tensor.ne.map(|n| n as usize);
        if expected.len() == 1 && ty.is_quantized() {
            return Err(self.wrong_type(tensor, "a vector"));
        }
        let mut values = vec![0.0; ne.iter().product()];
        ty.to_f32(self.gguf.data(tensor), &mut values);
        let stored = Stored::from_f32(ne, &values)
            .ok_or_else(|| self.no_memory(tensor, values.len() * 4))?;
        Ok(self.named(stored, tensor))
    }

    fn table(&self, name: &str, width: usize, rows: usize) -> Result<Table, OpenError> {
        let (tensor, ty) = self.checked(name, &[width, rows])?;
        Ok(Table::new(self.gguf, tensor, ty))
    }

    /// What the file calls a tensor of the layer.
    fn name(&self, il: usize, suffix: &str) -> String {
        format!("blk.{}.{suffix}.weight", self.cut.sources[il])
    }

    fn layer(&self, c: &TextConfig, il: usize) -> Result<LayerWeights, OpenError> {
        let name = |suffix: &str| self.name(il, suffix);
        let vector = |suffix: &str, len: usize| self.small(&name(suffix), &[len]);
        let matrix = |suffix: &str, n: usize, m: usize| self.matrix(&name(suffix), &[n, m]);
        let (e, a, p, d) = (c.embedding, c.streams, c.per_layer, c.head_dim);
        let (f, full) = (c.ffn[il], self.cut.full[il]);
        let (attn_q, attn_k, attn_v) = self.qkv(c, il)?;
        let kv_weights = match (attn_k, attn_v) {
            (Some(k), Some(v)) => Some(KvWeights { k, k_norm: vector("attn_k_norm", d)?, v }),
            _ => None,
        };
        Ok(LayerWeights {
            altup_router: self.small(&name("altup_router"), &[e, a])?,
            altup_router_norm: vector("altup_router_norm", e)?,
            altup_predict_coef: self.small(&name("altup_predict_coef"), &[a, a * a])?,
            altup_correct_coef: self.small(&name("altup_correct_coef"), &[a, a])?,
            altup_correct_scale: vector("altup_correct_scale", e)?,
            attn_norm: vector("attn_norm", e)?,
            laurel_l: matrix("laurel_l", e, c.laurel)?,
            laurel_r: matrix("laurel_r", c.laurel, e)?,
            laurel_post_norm: vector("laurel_post_norm", e)?,
            attn_q,
            attn_q_norm: vector("attn_q_norm", d)?,
            kv: kv_weights,
            attn_output: matrix("attn_output", c.heads * d, e)?,
            post_attention_norm: vector("post_attention_norm", e)?,
            ffn_norm: vector("ffn_norm", e)?,
            ffn_gate: self.rows(&name("ffn_gate"), [e, full], f)?,
            ffn_up: self.rows(&name("ffn_up"), [e, full], f)?,
            ffn_down: self.down(c, il)?,
            post_ffw_norm: vector("post_ffw_norm", e)?,
            inp_gate: matrix("inp_gate", e, p)?,
            proj: matrix("proj", p, e)?,
            post_norm: vector("post_norm", e)?,
        })
    }

    /// `ffn_down` in the layout that the metadata announce, and in no other.
    fn down(&self, c: &TextConfig, il: usize) -> Result<Down, OpenError> {
        let (e, f, full) = (c.embedding, c.ffn[il], self.cut.full[il]);
        let turned = self.name(il, FFN_DOWN_T);
        let there = self.gguf.tensor(&turned).is_some();
        match (c.neuron_major, c.sparsity[il].is_some()) {
            (true, true) if there => Ok(Down::Neurons(self.rows(&turned, [e, full], f)?)),
            (true, true) => Err(self.fault(Fault::MissingNeuronMajor(turned))),
            (true, false) if there => {
                let problem = "neuron-major, but the layer is not sparse";
                Err(self.fault(Fault::Layout { name: turned, problem }))
            }
            (false, _) if there => {
                let problem = "neuron-major, but gemma3n.cli.layout does not say so";
                Err(self.fault(Fault::Layout { name: turned, problem }))
            }
            _ => Ok(Down::Outputs(self.columns(&self.name(il, "ffn_down"), [full, e], f)?)),
        }
    }

    /// q, k and v: three matrices, or one with all rows below each other. Layers that share read
    /// no K/V of their own, present or not.
    fn qkv(
        &self,
        c: &TextConfig,
        il: usize,
    ) -> Result<(Stored, Option<Stored>, Option<Stored>), OpenError> {
        let (e, q, kv) = (c.embedding, c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let owns = il < c.owners();
        let fused = self.name(il, "attn_qkv");
        if self.gguf.tensor(&fused).is_some() {
            let (tensor, ty) = self.checked(&fused, &[e, q + 2 * kv])?;
            let rows = |first, count| self.part(tensor, ty, first, count);
            let own = |first| owns.then(|| rows(first, kv)).transpose();
            return Ok((rows(0, q)?, own(q)?, own(q + kv)?));
        }
        let matrix = |suffix: &str, m: usize| self.matrix(&self.name(il, suffix), &[e, m]);
        let attn_q = matrix("attn_q", q)?;
        if !owns {
            return Ok((attn_q, None, None));
        }
        Ok((attn_q, Some(matrix("attn_k", kv)?), Some(matrix("attn_v", kv)?)))
    }
}
