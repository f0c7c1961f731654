//! One reading over the threshold is chance; three of five are an alarm.

/// Readings over the threshold that make an alarm.
pub const NEEDED: u32 = 3;
/// Readings looked back on, the newest among them.
pub const WINDOW: u32 = 5;

/// The last readings of one device.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debounce {
    /// One bit per reading, the newest lowest.
    over: u8,
}

impl Debounce {
    /// Takes in whether a reading is over the threshold; answers whether there is an alarm now.
    pub fn observe(&mut self, over: bool) -> bool {
        self.over = (self.over << 1 | u8::from(over)) & ((1 << WINDOW) - 1);
        self.over.count_ones() >= NEEDED
    }

    pub(crate) fn bits(self) -> u8 {
        self.over
    }

    /// `None` when there are bits of readings that are not looked back on.
    pub(crate) fn from_bits(over: u8) -> Option<Self> {
        (over < 1 << WINDOW).then_some(Self { over })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(readings: &str, expected: &str) {
        let mut debounce = Debounce::default();
        let got: String = readings
            .chars()
            .map(|c| if debounce.observe(c == '!') { 'A' } else { '.' })
            .collect();
        assert_eq!(got, expected, "{readings}");
    }

    #[test]
    fn three_of_five_alarm_and_two_do_not() {
        check("!!....", "......");
        check("!!!...", "..AAA.");
        check("!.!.!.", "....A.");
        check("!..!.!", "......");
    }
}
