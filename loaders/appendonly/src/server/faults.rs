//! What goes wrong on demand. Drawn from a seed, so that a run can be repeated.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// What goes wrong with writes, as shares from 0 to 1.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Writes that have their effect, but whose answer is lost.
    pub lose_answers: f64,
    /// Writes that are lost before they have an effect; to the sender it looks
    /// the same.
    pub lose_requests: f64,
    /// Keys that are refused with 422: always the same ones for a seed.
    pub reject_share: f64,
    /// Writes that are answered with 429, without effect.
    pub throttle_share: f64,
    /// Writes that are answered with 503, without effect.
    pub error_share: f64,
    /// Writes take effect after up to so many milliseconds.
    pub slow_ms: u64,
    /// Where the draws start.
    pub seed: u64,
}

/// How often what happened to a write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Writes received.
    pub writes: u64,
    /// [`Faults::lose_answers`] hit.
    pub answers_lost: u64,
    /// [`Faults::lose_requests`] hit.
    pub requests_lost: u64,
    /// [`Faults::reject_share`] hit.
    pub rejected: u64,
    /// [`Faults::throttle_share`] hit.
    pub throttled: u64,
    /// [`Faults::error_share`] hit.
    pub failed: u64,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Answer,
    LoseAnswer,
    LoseRequest,
    Reject,
    Throttle,
    Fail,
}

/// The draws, and their count.
pub(super) struct Draws {
    faults: Faults,
    random: StdRng,
    pub(super) stats: Stats,
}

impl Draws {
    /// Draws of these faults; the counts go on.
    pub(super) fn new(faults: Faults, stats: Stats) -> Self {
        Draws {
            random: StdRng::seed_from_u64(faults.seed),
            faults,
            stats,
        }
    }

    /// What becomes of the next write of that key, and how long it takes.
    pub(super) fn draw(&mut self, key: &str) -> (Fate, Duration) {
        self.stats.writes += 1;
        // Always as many draws, so that one fault does not shift another's.
        let dice: [f64; 5] = self.random.random();
        let slow = Duration::from_millis((dice[4] * self.faults.slow_ms as f64) as u64);
        let faults = &self.faults;
        let (fate, count) = if dice[0] < faults.throttle_share {
            (Fate::Throttle, &mut self.stats.throttled)
        } else if dice[1] < faults.error_share {
            (Fate::Fail, &mut self.stats.failed)
        } else if !key.is_empty() && share_of(faults.seed, key) < faults.reject_share {
            (Fate::Reject, &mut self.stats.rejected)
        } else if dice[2] < faults.lose_requests {
            (Fate::LoseRequest, &mut self.stats.requests_lost)
        } else if dice[3] < faults.lose_answers {
            (Fate::LoseAnswer, &mut self.stats.answers_lost)
        } else {
            return (Fate::Answer, slow);
        };
        *count += 1;
        (fate, slow)
    }
}

/// A number from 0 to 1 that belongs to the key.
fn share_of(seed: u64, key: &str) -> f64 {
    let mut hash = DefaultHasher::new();
    (seed, key).hash(&mut hash);
    (hash.finish() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_shares_are_met() {
        let faults = Faults {
            lose_answers: 0.3,
            reject_share: 0.1,
            seed: 7,
            ..Faults::default()
        };
        let run = || {
            let mut draws = Draws::new(faults.clone(), Stats::default());
            let fates: Vec<_> = (0..2000).map(|n| draws.draw(&n.to_string()).0).collect();
            (fates, draws.stats)
        };
        let (fates, stats) = run();
        assert_eq!(run(), (fates, stats.clone()));
        assert_eq!(stats.writes, 2000);
        assert!((150..250).contains(&stats.rejected), "{stats:?}");
        assert!((450..630).contains(&stats.answers_lost), "{stats:?}");
        let mut draws = Draws::new(faults, Stats::default());
        let first = draws.draw("same").0 == Fate::Reject;
        assert!((0..20).all(|_| (draws.draw("same").0 == Fate::Reject) == first));
    }
}
