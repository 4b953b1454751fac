//! What a run has come to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Options;
use super::blow::Blow;

/// The aim for supervised restarts: 99 of 100 flow again within this time.
const AIM: Duration = Duration::from_secs(10);

/// Counts and times.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Replays the run's choices.
    pub seed: u64,
    /// For how long blows fell.
    pub seconds: f64,
    /// Processes that were ended by SIGKILL, `drover run` included.
    pub kills: usize,
    /// By blow, the times until rows flowed again.
    pub recovery: BTreeMap<Blow, Vec<Duration>>,
    /// Records that both sides were compared on.
    pub compared: usize,
    /// Records that wait, or are dead, for a parent which the source lacks.
    pub waiting: usize,
    /// In the source, and not in the target.
    pub lost: usize,
    /// In the target more than once.
    pub doubled: usize,
    /// Otherwise different.
    pub differing: usize,
    /// What went wrong, in sentences.
    pub troubles: Vec<String>,
    stuck: bool,
}

impl Figures {
    /// None yet.
    pub fn new(options: &Options) -> Figures {
        Figures {
            seed: options.seed,
            ..Figures::default()
        }
    }

    /// Adds what one migration brought during one blow.
    pub fn take(&mut self, part: Figures) {
        self.kills += part.kills;
        for (blow, times) in part.recovery {
            self.recovery.entry(blow).or_default().extend(times);
        }
        self.troubles.extend(part.troubles);
        self.stuck |= part.stuck;
    }

    /// Rows flowed again after that time.
    pub fn flowed(&mut self, blow: Blow, after: Duration) {
        self.recovery.entry(blow).or_default().push(after);
    }

    /// Rows did not flow again.
    pub fn stuck(&mut self, blow: Blow, what: &str) {
        self.stuck = true;
        self.troubles
            .push(format!("no rows flow after {}: {what}", blow.name()));
    }

    /// Whether a migration stands still.
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.lost + self.doubled + self.differing == 0
            && self.troubles.is_empty()
            && self.compared > 0
    }

    /// How it goes, on one line.
    pub fn line(&self) -> String {
        let times = self.times(Blow::is_supervised);
        format!(
            "{:6.0} s  {:5} kills  recovery p50 {} p99 {}",
            self.seconds,
            self.kills,
            seconds(percentile(&times, 50)),
            seconds(percentile(&times, 99)),
        )
    }

    /// The whole, for a person.
    pub fn render(&self) -> String {
        let mut text = format!(
            "\nseed {}: {} kills in {:.0} s\n\nfrom the blow to rows flowing again\n",
            self.seed, self.kills, self.seconds
        );
        text += &format!(
            "  {:<12} {:>6} {:>9} {:>9} {:>9}\n",
            "", "times", "p50", "p99", "most"
        );
        for blow in self.recovery.keys() {
            let times = self.times(|other| other == *blow);
            text += &format!(
                "  {:<12} {:>6} {:>9} {:>9} {:>9}\n",
                blow.name(),
                times.len(),
                seconds(percentile(&times, 50)),
                seconds(percentile(&times, 99)),
                seconds(times.last().copied()),
            );
        }
        let supervised = self.times(Blow::is_supervised);
        let aim = match percentile(&supervised, 99) {
            Some(p99) if p99 < AIM => "reached",
            _ => "missed",
        };
        text += &format!("  aim: p99 of kills below {} s: {aim}\n\n", AIM.as_secs());
        text += &format!(
            "{} records compared: {} lost, {} doubled, {} otherwise different; \
             {} without a parent\n",
            self.compared, self.lost, self.doubled, self.differing, self.waiting
        );
        for trouble in &self.troubles {
            text += &format!("\n{trouble}\n");
        }
        text
    }

    /// The whole, for programs.
    pub fn json(&self) -> Value {
        let recovery = |times: Vec<Duration>| {
            let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
            json!({
                "times": times.len(),
                "p50Ms": ms(percentile(&times, 50)),
                "p99Ms": ms(percentile(&times, 99)),
                "mostMs": ms(times.last().copied()),
            })
        };
        let by_blow: BTreeMap<&str, Value> = self
            .recovery
            .keys()
            .map(|blow| (blow.name(), recovery(self.times(|other| other == *blow))))
            .collect();
        json!({
            "seed": self.seed,
            "seconds": self.seconds.round(),
            "processors": std::thread::available_parallelism().map_or(1, usize::from),
            "kills": self.kills,
            "supervisedRecovery": recovery(self.times(Blow::is_supervised)),
            "recovery": by_blow,
            "compared": self.compared,
            "withoutParent": self.waiting,
            "lost": self.lost,
            "doubled": self.doubled,
            "differing": self.differing,
            "passed": self.passed(),
        })
    }

    /// The times after some blows, the shortest first.
    fn times(&self, wanted: impl Fn(Blow) -> bool) -> Vec<Duration> {
        let mut times: Vec<Duration> = self
            .recovery
            .iter()
            .filter(|(blow, _)| wanted(**blow))
            .flat_map(|(_, times)| times.iter().copied())
            .collect();
        times.sort();
        times
    }
}

/// The time within which that many of a hundred lie.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted.get(place.checked_sub(1)?).copied()
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| {
        format!("{:.2} s", time.as_secs_f64())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let ms = |percent| percentile(&times, percent).map(|time| time.as_millis());
        assert_eq!(ms(50), Some(100));
        assert_eq!(ms(99), Some(198));
        assert_eq!(ms(100), Some(200));
        assert_eq!(percentile(&times[..1], 99), Some(times[0]));
        assert_eq!(percentile(&[], 99), None);
    }

    #[test]
    fn nothing_compared_is_no_success() {
        let mut figures = Figures::default();
        assert!(!figures.passed());
        figures.compared = 1;
        assert!(figures.passed());
        figures.lost = 1;
        assert!(!figures.passed());
    }
}
