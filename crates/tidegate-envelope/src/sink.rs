//! Text into a buffer of fixed size: what a device without an allocator writes to.

use core::fmt;

/// Takes text until its buffer is full.
#[derive(Debug)]
pub struct SliceSink<'b> {
    buffer: &'b mut [u8],
    used: usize,
}

impl<'b> SliceSink<'b> {
    /// An empty sink over `buffer`.
    #[must_use]
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.buffer[..self.used]
    }
}

/// An error means that the text has no room. Nothing of it is written then.
impl fmt::Write for SliceSink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.buffer[self.used..].get_mut(..text.len());
        room.ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn text_fits_to_the_last_byte_and_not_beyond() {
        let mut buffer = [0; 4];
        let mut sink = SliceSink::new(&mut buffer);
        sink.write_str("abc").unwrap();
        assert_eq!(sink.write_str("de"), Err(fmt::Error));
        sink.write_str("f").unwrap();
        assert_eq!(sink.write_str("g"), Err(fmt::Error));
        assert_eq!(sink.written(), b"abcf");
    }
}
