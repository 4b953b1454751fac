//! How many records of a lane may fail.

use std::collections::VecDeque;

use crate::error::{Code, Error};

/// Stops a lane whose records fail too often: 5 % of the last 1,000.
#[derive(Debug, Default)]
pub struct FailureShare {
    window: VecDeque<bool>,
    failures: usize,
}

impl FailureShare {
    const WINDOW: usize = 1000;
    const MOST: usize = 50;

    /// Notes an outcome; an error when failures take more than their share.
    pub fn note(&mut self, failed: bool) -> Result<(), Error> {
        self.window.push_back(failed);
        self.failures += usize::from(failed);
        if self.window.len() > Self::WINDOW && self.window.pop_front() == Some(true) {
            self.failures -= 1;
        }
        if self.failures > Self::MOST {
            return Err(Error::new(
                Code::TooManyDeadLetters,
                format!(
                    "{} of the last {} records failed",
                    self.failures,
                    self.window.len()
                ),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_stops_above_five_per_cent_of_the_last_thousand() {
        let mut share = FailureShare::default();
        for n in 0..2000 {
            assert!(share.note(n % 20 == 0).is_ok(), "{n}");
        }
        let refused = (0..1000).find_map(|_| share.note(true).err());
        assert_eq!(refused.map(|e| e.code), Some(Code::TooManyDeadLetters));
    }
}
