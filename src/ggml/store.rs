//! Tensors that outlive a graph: weights over a mapped file, and memory of our own.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;

use super::sys;
use super::types::Type;

/// ggml reads rows with vector loads; a tensor's first byte lies on a multiple of this.
pub const ALIGNMENT: usize = 32;
const OWN_ALIGNMENT: usize = 64;

/// A tensor with its data, shared by the graphs that use it.
#[derive(Clone)]
pub struct Stored {
    inner: Arc<Inner>,
    /// What the file it is from calls it; empty for our own.
    name: Arc<str>,
}

struct Inner {
    ctx: NonNull<sys::ggml_context>,
    tensor: NonNull<sys::ggml_tensor>,
    data: Data,
}

enum Data {
    /// Bytes of somebody else's, kept alive by the owner.
    Shared(#[expect(dead_code, reason = "held for its lifetime only")] Arc<dyn Any + Send + Sync>),
    Own(Memory),
}

// SAFETY: the tensor header is written only while it is made. Its data is either immutable
// (Shared) or written by graphs, which their owner runs one at a time (`Graph::run` takes
// `&mut Threads`, and caches belong to one decoder), or through `bytes_mut` on `&mut self`.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: the context was made in `header` and nothing else frees it.
        unsafe { sys::ggml_free(self.ctx.as_ptr()) };
    }
}

impl Stored {
    /// A tensor over bytes that `owner` keeps, without a copy. `None` when the bytes do not lie
    /// as ggml needs them (then `copied` is the way). `ne` is ggml's order, row length first.
    pub fn over<O: Send + Sync + 'static>(
        owner: &Arc<O>,
        ty: Type,
        ne: [usize; 4],
        bytes: impl for<'a> FnOnce(&'a O) -> &'a [u8],
    ) -> Option<Self> {
        let bytes = bytes(owner);
        assert_eq!(bytes.len(), nbytes(ty, ne), "bytes of a {} tensor {ne:?}", ty);
        Self::shared(owner, ty, ne, bytes)
    }

    /// The same for rows that lie further apart than they are long: `stride` bytes from one to
    /// the next, a multiple of the type's block. The bytes end with the last row.
    pub fn over_rows<O: Send + Sync + 'static>(
        owner: &Arc<O>,
        ty: Type,
        ne: [usize; 4],
        stride: usize,
        bytes: impl for<'a> FnOnce(&'a O) -> &'a [u8],
    ) -> Option<Self> {
        let (bytes, row) = (bytes(owner), ty.row_bytes(ne[0]));
        assert!(ne[1] > 0 && ne[2] * ne[3] == 1, "rows of a {ty} matrix {ne:?}");
        assert_eq!(bytes.len(), stride * (ne[1] - 1) + row, "bytes of a {ty} tensor {ne:?}");
        assert!(stride >= row && stride.is_multiple_of(ty.row_bytes(ty.block_len())));
        let mut tensor = Self::shared(owner, ty, ne, bytes)?;
        let inner = Arc::get_mut(&mut tensor.inner).expect("nobody else has it yet");
        // SAFETY: the header was just made and nobody else has it yet; the strides stay inside
        // the bytes, as was checked.
        let header = unsafe { inner.tensor.as_mut() };
        header.nb[1] = stride;
        header.nb[2] = stride * ne[1];
        header.nb[3] = header.nb[2];
        Some(tensor)
    }

    fn shared<O: Send + Sync + 'static>(
        owner: &Arc<O>,
        ty: Type,
        ne: [usize; 4],
        bytes: &[u8],
    ) -> Option<Self> {
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGNMENT) {
            return None;
        }
        let data = bytes.as_ptr().cast_mut();
        let owner: Arc<dyn Any + Send + Sync> = owner.clone();
        Some(Self::with(ty, ne, data, Data::Shared(owner)))
    }

    /// A tensor with a copy of the bytes. `None`: no memory for it.
    pub fn copied(ty: Type, ne: [usize; 4], bytes: &[u8]) -> Option<Self> {
        Self::gathered(ty, ne, [bytes])
    }

    /// A tensor with a copy of these stretches of bytes, one after the other. `None`: no memory
    /// for it.
    pub fn gathered<'a>(
        ty: Type,
        ne: [usize; 4],
        stretches: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut tensor = Self::zeroed(ty, ne)?;
        let mut rest = tensor.bytes_mut();
        for bytes in stretches {
            let (part, behind) = rest.split_at_mut(bytes.len());
            part.copy_from_slice(bytes);
            rest = behind;
        }
        Some(tensor)
    }

    /// A tensor of f32 values. `None`: no memory for it.
    pub fn from_f32(ne: [usize; 4], values: &[f32]) -> Option<Self> {
        let mut tensor = Self::zeroed(Type::F32, ne)?;
        for (slot, value) in tensor.bytes_mut().chunks_exact_mut(4).zip(values) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
        assert_eq!(values.len(), ne.iter().product::<usize>(), "values of a tensor {ne:?}");
        Some(tensor)
    }

    /// A tensor of zeros; the pages come into being when they are first written. `None`: the
    /// system has no memory of that size.
    pub fn zeroed(ty: Type, ne: [usize; 4]) -> Option<Self> {
        let row = ty.row_bytes(ne[0]);
        let bytes = ne[1..].iter().try_fold(row, |bytes, &n| bytes.checked_mul(n))?;
        let memory = Memory::zeroed(bytes)?;
        let data = memory.start.as_ptr();
        Some(Self::with(ty, ne, data, Data::Own(memory)))
    }

    fn with(ty: Type, ne: [usize; 4], bytes: *mut u8, data: Data) -> Self {
        let (ctx, mut tensor) = header(ty, ne);
        // SAFETY: the header was just made and nobody else has it yet.
        unsafe { tensor.as_mut() }.data = bytes.cast();
        Self { inner: Arc::new(Inner { ctx, tensor, data }), name: "".into() }
    }

    /// With the name that its file has for it.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn ne(&self) -> [usize; 4] {
        self.header().ne.map(|n| n as usize)
    }

    pub fn ty(&self) -> Type {
        Type::from_raw(self.header().type_)
    }

    /// Bytes of the tensor's data, without what lies between its rows.
    pub fn len(&self) -> usize {
        nbytes(self.ty(), self.ne())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data of a tensor whose rows follow each other.
    pub fn bytes(&self) -> &[u8] {
        let header = self.header();
        let row = self.ty().row_bytes(header.ne[0] as usize);
        assert_eq!(header.nb[1], row, "bytes of a tensor whose rows lie apart");
        // SAFETY: data points at `len` bytes that live as long as `inner`; they are written only
        // by a running graph or through `bytes_mut`, neither of which can happen meanwhile: both
        // need exclusive use of the decoder that owns the tensor and its graphs.
        unsafe { std::slice::from_raw_parts(self.header().data.cast(), self.len()) }
    }

    /// Overwrites one row (of the first two dimensions) of a tensor of our own.
    pub fn write_row(&mut self, row: usize, bytes: &[u8]) {
        let start = row * bytes.len();
        self.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// The bytes of a tensor of our own. Graphs may hold it too, but run only through the
    /// exclusive owner of both, so none is reading now.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        match &self.inner.data {
            Data::Shared(_) => panic!("a file's bytes are not written"),
            // SAFETY: the memory is ours, as long as `memory.len`, and `&mut self` of the only
            // owner outside graphs; no graph is running (see the Send reasoning above).
            Data::Own(memory) => unsafe {
                std::slice::from_raw_parts_mut(memory.start.as_ptr(), memory.layout.size())
            },
        }
    }

    fn header(&self) -> &sys::ggml_tensor {
        // SAFETY: the header lives in the context that `inner` owns.
        unsafe { self.inner.tensor.as_ref() }
    }

    pub(super) fn raw(&self) -> *mut sys::ggml_tensor {
        self.inner.tensor.as_ptr()
    }
}

fn nbytes(ty: Type, ne: [usize; 4]) -> usize {
    ty.row_bytes(ne[0]) * ne[1] * ne[2] * ne[3]
}

/// A tensor header in a context of its own, without data.
fn header(ty: Type, ne: [usize; 4]) -> (NonNull<sys::ggml_context>, NonNull<sys::ggml_tensor>) {
    super::init();
    // SAFETY: a plain query.
    let size = unsafe { sys::ggml_tensor_overhead() };
    let params =
        sys::ggml_init_params { mem_size: size, mem_buffer: std::ptr::null_mut(), no_alloc: true };
    // SAFETY: ggml allocates the context itself; one header is what it has room for.
    let ctx = NonNull::new(unsafe { sys::ggml_init(params) }).expect("memory for a tensor header");
    let ne = ne.map(|n| n as i64);
    // SAFETY: the context is fresh and has room for one header.
    let tensor =
        unsafe { sys::ggml_new_tensor_4d(ctx.as_ptr(), ty.raw(), ne[0], ne[1], ne[2], ne[3]) };
    (ctx, NonNull::new(tensor).expect("a header"))
}

/// Zeroed memory on a multiple of 64 bytes.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn zeroed(len: usize) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), OWN_ALIGNMENT).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, layout })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}
