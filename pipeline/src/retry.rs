//! How long to wait before trying again.

use std::time::Duration;

use crate::error::Error;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// No wait is longer than this, whatever the other side asks for.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// A jittered exponential back-off without a limit on the number of tries.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// How long to wait after this failure: what the other side asks for, but
    /// no less than our own back-off; doubled each time up to 30 s, and between
    /// half and all of it by chance, so that replicas do not come back at once.
    pub fn after(&mut self, error: &Error) -> Duration {
        let step = FIRST
            .saturating_mul(2_u32.saturating_pow(self.tries))
            .min(LONGEST);
        self.tries = self.tries.saturating_add(1).min(16);
        let jittered = step.mul_f64(rand::random_range(0.5..=1.0));
        match error.retry_after {
            Some(asked) => asked.clamp(jittered, A_DAY.max(jittered)),
            None => jittered,
        }
    }

    /// How often it failed since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn waits_grow_to_a_limit_and_obey_the_other_side() {
        let error = Error::new(Code::ServerError, "x");
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.after(&error)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[11] >= LONGEST / 2);
        let asked = error.retry_after(Duration::from_secs(90));
        assert_eq!(backoff.after(&asked), Duration::from_secs(90));
        backoff.reset();
        assert_eq!(backoff.tries(), 0);
    }
}
