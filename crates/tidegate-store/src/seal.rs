//! A checksum of each stored reading: SQLite's pages carry none.
//!
//! CRC-32 (ISO-HDLC, as in Ethernet) over the database's identity and everything that the row says,
//! names in place of numbers. It finds faults of the hardware, and rows of another database; whoever
//! can write the file can compute it too.

/// What a row says, as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) id: i64,
    pub(crate) device: Option<&'a str>,
    pub(crate) zone: Option<&'a str>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) received: i64,
    pub(crate) boot: Option<u32>,
    pub(crate) sequence: Option<i64>,
    pub(crate) protected: bool,
    pub(crate) status: &'a str,
    /// The layout's names as a JSON array.
    pub(crate) names: Option<&'a str>,
    pub(crate) channels: &'a str,
}

impl Sealed<'_> {
    /// The checksum. `buffer` is working space, so that none is allocated.
    pub(crate) fn checksum(&self, identity: i64, buffer: &mut Vec<u8>) -> i32 {
        buffer.clear();
        buffer.extend(identity.to_le_bytes());
        buffer.extend(self.id.to_le_bytes());
        buffer.extend(self.received.to_le_bytes());
        buffer.push(u8::from(self.protected));
        for number in [self.timestamp, self.boot.map(i64::from), self.sequence] {
            buffer.push(u8::from(number.is_some()));
            buffer.extend(number.unwrap_or(0).to_le_bytes());
        }
        let texts = [
            self.device,
            self.zone,
            Some(self.status),
            self.names,
            Some(self.channels),
        ];
        for text in texts {
            // One more than its length, so that none and an empty one differ.
            buffer.extend(text.map_or(0, |text| text.len() + 1).to_le_bytes());
            buffer.extend(text.unwrap_or("").as_bytes());
        }
        crc32fast::hash(buffer).cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Sealed<'static> = Sealed {
        id: 7,
        device: Some("device-001"),
        zone: None,
        timestamp: Some(1),
        received: 2,
        boot: Some(3),
        sequence: Some(4),
        protected: true,
        status: "operational",
        names: Some(r#"["flow"]"#),
        channels: "[1.0]",
    };

    #[test]
    fn every_part_of_a_row_counts() {
        let mut buffer = Vec::new();
        let sound = ROW.checksum(1, &mut buffer);
        assert_eq!(ROW.checksum(1, &mut buffer), sound);
        assert_ne!(ROW.checksum(2, &mut buffer), sound);
        for other in [
            Sealed { id: 8, ..ROW },
            Sealed {
                device: Some("device-002"),
                ..ROW
            },
            Sealed { device: None, ..ROW },
            Sealed {
                zone: Some(""),
                ..ROW
            },
            Sealed {
                timestamp: None,
                ..ROW
            },
            Sealed { received: 3, ..ROW },
            Sealed { boot: None, ..ROW },
            Sealed {
                sequence: Some(5),
                ..ROW
            },
            Sealed {
                protected: false,
                ..ROW
            },
            Sealed {
                status: "operationak",
                ..ROW
            },
            Sealed { names: None, ..ROW },
            Sealed {
                channels: "[2.0]",
                ..ROW
            },
        ] {
            assert_ne!(other.checksum(1, &mut buffer), sound, "{other:?}");
        }
    }
}
