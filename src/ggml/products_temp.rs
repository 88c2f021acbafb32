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
}
