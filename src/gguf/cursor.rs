//! Reading forward through bytes, every step checked against what is left.

/// A position in a file's bytes. Each read returns `None` when the bytes end first, and then
/// leaves the position where the missing piece starts.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes after the position.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    pub fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let n = usize::try_from(n).ok()?;
        let piece = self.bytes.get(self.position..self.position.checked_add(n)?)?;
        self.position += n;
        Some(piece)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.try_into().ok()
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string: u64 length, then so many bytes of any content.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.position;
        let piece = self.u64().and_then(|len| self.take(len));
        if piece.is_none() {
            self.position = start;
        }
        piece
    }
}
