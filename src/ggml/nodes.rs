//! temporary
use super::builder::Tensor;
#[allow(unused_variables)]
impl<'b> Tensor<'b> {
    pub fn has_product_kernel(self) -> bool {
        false
    }
    pub fn quantize_q8(self) -> Self {
        unreachable!()
    }
    pub fn product_q8(self, x: Self) -> Self {
        unreachable!()
    }
    pub fn sparse_gated_up(self, gate: Self, cutoff: Self, x: Self) -> Self {
        unreachable!()
    }
    pub fn gelu_mul(self, up: Self) -> Self {
        unreachable!()
    }
    pub fn softcap(self, cap: f32) -> Self {
        unreachable!()
    }
    pub fn topk_cutoff(self, z: f32) -> Self {
        unreachable!()
    }
    pub fn topk_gelu_mul(self, up: Self, cutoff: Self) -> Self {
        unreachable!()
    }
    pub fn norm_rope(self, w: Self, cos: Self, sin: Self, eps: f32) -> Self {
        unreachable!()
    }
    pub fn altup_predict(self, n: Self, r: Self, c: Self, active: usize, eps: f32) -> Self {
        unreachable!()
    }
    pub fn altup_correct(
        self,
        act: Self,
        n: Self,
        r: Self,
        c: Self,
        active: usize,
        eps: f32,
    ) -> Self {
        unreachable!()
    }
    pub fn add_to_streams(self, p: Self, w: Self, eps: f32) -> Self {
        unreachable!()
    }
}
