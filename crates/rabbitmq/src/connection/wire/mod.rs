//! Owns reading AMQP's encoding in place: numbers and strings with a length before them (AMQP 0-9-1, section 4.2.5).

pub(crate) mod table;

/// Bytes that are not read yet.
pub(crate) struct Wire<'a>(pub &'a mut [u8]);

impl<'a> Wire<'a> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// The bytes of a string with its length in one byte.
    pub fn short_string(&mut self) -> Option<&'a mut [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// Bytes with their length in four bytes: a long string, a byte array, an array or a table.
    pub fn long_bytes(&mut self) -> Option<&'a mut [u8]> {
        let length = self.array().map(u32::from_be_bytes)?;
        self.take(length as usize)
    }
}
