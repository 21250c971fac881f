//! The weight of a JSON text: how many objects and values a parser would store. Clients choose the text, and a few
//! bytes such as `{"":0}` become more than half a kilobyte in memory, so the weight is checked before parsing.

/// Bytes that one entry of a map takes in memory beside its texts, approximately: the entry and its allocations.
pub(crate) const ITEM: usize = 256;

/// The objects and values of a JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Objects with at least one field.
    pub objects: usize,
    /// Values of all kinds: the root, fields of objects, and items of arrays.
    pub values: usize,
}

impl Weight {
    /// Weighs a JSON text. In invalid JSON, the part before the first error is weighed correctly, and a parser stores
    /// no more than that.
    #[must_use]
    pub fn of(json: &[u8]) -> Self {
        let mut weight = Self { objects: 0, values: 1 };
        let (mut is_string, mut is_escaped) = (false, false);
        // The bracket of the object or array that is empty so far.
        let mut opened = None;
        for &byte in json {
            if is_string {
                is_string = is_escaped || byte != b'"';
                is_escaped = !is_escaped && byte == b'\\';
                continue;
            }
            if byte.is_ascii_whitespace() {
                continue;
            }
            if let Some(bracket) = opened.take()
                && !matches!(byte, b'}' | b']')
            {
                weight.values += 1;
                weight.objects += usize::from(bracket == b'{');
            }
            match byte {
                b'"' => is_string = true,
                b',' => weight.values += 1,
                b'{' | b'[' => opened = Some(byte),
                _ => {}
            }
        }
        weight
    }

    /// Whether neither number exceeds that of `most`.
    #[must_use]
    pub const fn is_within(self, most: Self) -> bool {
        self.objects <= most.objects && self.values <= most.values
    }
}
