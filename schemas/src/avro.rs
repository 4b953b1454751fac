//! Avro's binary encoding, the parts that our schemas use.
//!
//! The `apache-avro` crate reads and writes through a tree of values, which
//! costs 8 to 10 µs a record; these functions write the same bytes straight
//! from the fields (`docs/adr/0002-avro-by-hand.md`). Tests hold every schema
//! of this crate against `apache-avro`, byte for byte.
//! Source: Apache Avro 1.12 specification, "Binary encoding".

/// Bytes that are not the datum they should be; says where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What was expected.
    pub expected: &'static str,
    /// At which byte.
    pub at: usize,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

impl std::error::Error for Malformed {}

/// Writes an `int` or `long`: zigzag, then seven bits a byte.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Writes `bytes`: length, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Writes a `string`.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads a datum from front to back.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Says what was expected here and not found.
    pub fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed {
            expected,
            at: self.at,
        }
    }

    /// Reads an `int` or `long`.
    pub fn long(&mut self) -> Result<i64, Malformed> {
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(self.malformed("a number"));
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(self.malformed("a number of at most ten bytes"))
    }

    /// Reads an `int` that is one of the first `count` whole numbers: an enum's
    /// symbol or a union's branch.
    pub fn choice(&mut self, count: i64) -> Result<i64, Malformed> {
        let value = self.long()?;
        if (0..count).contains(&value) {
            Ok(value)
        } else {
            Err(self.malformed("a branch or symbol of the schema"))
        }
    }

    /// Reads exactly `count` bytes (`fixed`).
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(slice) => {
                self.at += count;
                Ok(slice)
            }
            None => Err(self.malformed("more bytes")),
        }
    }

    /// Reads `bytes`.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| self.malformed("a length"))?;
        self.take(length)
    }

    /// Reads a `string`.
    pub fn str(&mut self) -> Result<&'a str, Malformed> {
        let at = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed {
            expected: "UTF-8 text",
            at,
        })
    }

    /// Refuses bytes behind the datum.
    pub fn end(self) -> Result<(), Malformed> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.malformed("the end"))
        }
    }
}
