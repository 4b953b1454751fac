//! What every scenario is given, and the order in which sides take turns.

use drover_tests::services::{Services, services};

/// An error here ends the whole run: a figure is measured or it is not.
pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// How large and how often.
pub struct Bench {
    /// Records that one run moves.
    pub records: u64,
    /// How often each side runs.
    pub runs: usize,
}

impl Bench {
    /// A bench of that size.
    pub fn new(records: u64, runs: usize) -> Bench {
        Bench { records, runs }
    }

    /// Kafka and PostgreSQL: those of the environment, or ones that end with
    /// this process.
    pub fn services(&self) -> &'static Services {
        services()
    }

    /// Runs every side once a round, each round beginning with the next side,
    /// so that a machine that grows slower or faster meets all sides alike.
    /// Returns each side's outcomes in the order of rounds.
    pub fn interleave<T>(
        &self,
        sides: usize,
        mut run: impl FnMut(usize, usize) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let mut outcomes: Vec<Vec<T>> = (0..sides).map(|_| Vec::new()).collect();
        for round in 0..self.runs {
            for turn in 0..sides {
                let side = (round + turn) % sides;
                outcomes[side].push(run(side, round)?);
            }
        }
        Ok(outcomes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_take_turns_at_being_first() {
        let mut order = Vec::new();
        let outcomes = Bench::new(1, 3)
            .interleave(2, |side, round| {
                order.push(side);
                Ok((side, round))
            })
            .expect("no error");
        assert_eq!(order, [0, 1, 1, 0, 0, 1]);
        assert_eq!(outcomes[1], [(1, 0), (1, 1), (1, 2)]);
    }
}
