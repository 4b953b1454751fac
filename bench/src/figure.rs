//! One figure: ours, the bare cost, and their ratio, over all runs.

use serde::{Deserialize, Serialize};

/// What was measured in each run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Runs(pub Vec<f64>);

impl Runs {
    /// The middle one, or between the middle two.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => sorted[half],
            _ => f64::midpoint(sorted[half - 1], sorted[half]),
        }
    }

    /// The smallest.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// One ratio a round: what was measured close together in time is compared.
    pub fn over(&self, bare: &Runs) -> Runs {
        Runs(self.0.iter().zip(&bare.0).map(|(a, b)| a / b).collect())
    }
}

impl FromIterator<f64> for Runs {
    fn from_iter<I: IntoIterator<Item = f64>>(all: I) -> Runs {
        Runs(all.into_iter().collect())
    }
}

/// What the figure should reach. Said beside it; it fails nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Aim {
    /// The ratio, or where there is none the figure, should not be below.
    AtLeast(f64),
    /// … should not be above.
    AtMost(f64),
}

impl Aim {
    fn holds(self, value: f64) -> bool {
        match self {
            Aim::AtLeast(least) => value >= least,
            Aim::AtMost(most) => value <= most,
        }
    }
}

/// A line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// The scenario that measured it.
    pub scenario: String,
    /// What it is, with its unit, in at most 27 characters: `records/s`.
    pub what: String,
    /// Of Drover.
    pub ours: Runs,
    /// Of the bare program, where there is one.
    pub bare: Option<Runs>,
    /// What it should reach.
    pub aim: Option<Aim>,
    /// What a reader must know: a weak baseline, a smaller size.
    pub notes: Vec<String>,
}

impl Figure {
    /// A figure of ours alone.
    pub fn new(scenario: &str, what: impl Into<String>, ours: Runs) -> Figure {
        Figure {
            scenario: scenario.to_owned(),
            what: what.into(),
            ours,
            bare: None,
            aim: None,
            notes: Vec::new(),
        }
    }

    /// The same beside the bare cost.
    #[must_use]
    pub fn beside(mut self, bare: Runs) -> Figure {
        self.bare = Some(bare);
        self
    }

    /// The same with what it should reach.
    #[must_use]
    pub fn aim(mut self, aim: Aim) -> Figure {
        self.aim = Some(aim);
        self
    }

    /// The same with a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Figure {
        self.notes.push(note.into());
        self
    }

    /// Ours over the bare one, round by round.
    pub fn ratio(&self) -> Option<Runs> {
        self.bare.as_ref().map(|bare| self.ours.over(bare))
    }

    /// Whether the median reaches the aim.
    pub fn reached(&self) -> Option<bool> {
        let value = self.ratio().unwrap_or_else(|| self.ours.clone()).median();
        self.aim.map(|aim| aim.holds(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aim_is_of_the_ratio_where_there_is_one() {
        let ours = Runs(vec![6.0, 4.0, 5.0]);
        assert!(ours.median() == 5.0 && ours.min() == 4.0 && ours.max() == 6.0);
        assert!(Runs(vec![1.0, 2.0]).median() == 1.5);
        let alone = Figure::new("s", "x", ours.clone()).aim(Aim::AtMost(4.9));
        assert_eq!(alone.reached(), Some(false));
        let beside = alone.beside(Runs(vec![2.0, 2.0, 2.0]));
        assert_eq!(beside.ratio().map(|r| r.median()), Some(2.5));
        assert_eq!(beside.reached(), Some(true));
        assert_eq!(beside.aim(Aim::AtLeast(2.6)).reached(), Some(false));
        assert_eq!(Figure::new("s", "x", ours).reached(), None);
    }
}
