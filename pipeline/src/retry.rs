//! How long to wait before trying again.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::error::{Class, Code, Error, Result};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);
/// No wait is longer than this, whatever the other side asks for.
const A_DAY: Duration = Duration::from_secs(24 * 3600);

/// How long something may stand still before it counts as stuck: 30 s, or what
/// `DROVER_PATIENCE_MS` says.
pub fn patience() -> Duration {
    static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
        let millis = std::env::var("DROVER_PATIENCE_MS").ok();
        let millis = millis.and_then(|text| text.parse().ok());
        millis.map_or(Duration::from_secs(30), Duration::from_millis)
    });
    *PATIENCE
}

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

/// Asks again while the failure is one that passes and `go_on` says so; it hears
/// for how long we have been asking. Another process that took over is no such
/// failure. Blocks.
pub fn patiently<T>(
    go_on: impl Fn(Duration) -> bool,
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let since = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match ask() {
            Err(error) if passes(&error) && go_on(since.elapsed()) => {
                let wait = backoff.after(&error).min(Duration::from_secs(2));
                tracing::warn!(%error, ?wait, "trying again");
                std::thread::sleep(wait);
            }
            result => return result,
        }
    }
}

/// Whether the same may be tried again by the same process.
pub fn passes(error: &Error) -> bool {
    error.class() == Class::Transient && error.code != Code::Fenced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn only_what_passes_is_asked_again() {
        let ask = |codes: &[Code]| {
            let mut left = codes.to_vec();
            let result = patiently(
                |_| true,
                || match left.pop() {
                    Some(code) => Err(Error::new(code, "x")),
                    None => Ok(()),
                },
            );
            (result.err().map(|error| error.code), left.len())
        };
        assert_eq!(ask(&[Code::KafkaBusy, Code::BrokerUnreachable]), (None, 0));
        let missing = Some(Code::TopicMissing);
        assert_eq!(ask(&[Code::KafkaBusy, Code::TopicMissing]), (missing, 1));
        let fenced = Some(Code::Fenced);
        assert_eq!(ask(&[Code::KafkaBusy, Code::Fenced]), (fenced, 1));
        let busy = patiently(|_| false, || Err::<(), _>(Error::new(Code::KafkaBusy, "x")));
        assert!(busy.is_err());
    }

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
