//! What can happen to a migration.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Kills between two other blows.
const KILLS: usize = 3;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Blow {
    /// Stages die by SIGKILL; `drover run` starts them again.
    Kill,
    /// A stage dies, and once more as soon as it is there again.
    KillTwice,
    /// A stage is stopped for a moment, and goes on.
    Pause,
    /// A stage is stopped for longer than its group waits for it.
    LongPause,
    /// `drover run` itself dies by SIGKILL, and is started again.
    Supervisor,
    /// One more loader comes, and later goes.
    Loaders,
    /// Clocks jump by minutes or hours, and stay so; some of their processes
    /// are killed, and start with such a clock.
    Clock,
    /// The source's API fails in one of its ways.
    Api,
    /// Kafka is killed and started again; counted from when it answers.
    Kafka,
    /// PostgreSQL is killed and started again; counted from when it answers.
    Postgres,
}

impl Blow {
    /// All but plain kills, which lie between them.
    const OTHERS: [Blow; 10] = [
        Blow::Api,
        Blow::Clock,
        Blow::Pause,
        Blow::Loaders,
        Blow::Supervisor,
        Blow::KillTwice,
        Blow::Postgres,
        Blow::LongPause,
        Blow::Kafka,
        Blow::Api,
    ];

    /// Its name in the figures.
    pub fn name(self) -> &'static str {
        match self {
            Blow::Kill => "kill",
            Blow::KillTwice => "kill twice",
            Blow::Pause => "pause",
            Blow::LongPause => "long pause",
            Blow::Supervisor => "supervisor",
            Blow::Loaders => "loaders",
            Blow::Clock => "clock",
            Blow::Api => "api",
            Blow::Kafka => "kafka",
            Blow::Postgres => "postgres",
        }
    }

    /// Whether `drover run` starts again what died: what the aim for the time of
    /// recovery is about.
    pub fn is_supervised(self) -> bool {
        matches!(self, Blow::Kill | Blow::KillTwice)
    }
}

/// The order of blows: kills, and between them each of the others once before
/// one comes again; or only what was asked for, in turn.
#[derive(Default)]
pub struct Deck {
    only: Vec<Blow>,
    left: Vec<Blow>,
    kills: usize,
}

impl Deck {
    /// With these blows and no others; with none named, all of them.
    pub fn of(only: &[Blow]) -> Deck {
        Deck {
            only: only.to_vec(),
            ..Deck::default()
        }
    }

    /// The next blow.
    pub fn draw(&mut self, random: &mut StdRng) -> Blow {
        if let Some(blow) = self.only.first().copied() {
            self.only.rotate_left(1);
            return blow;
        }
        if self.kills < KILLS {
            self.kills += 1;
            return Blow::Kill;
        }
        self.kills = 0;
        if self.left.is_empty() {
            self.left = Blow::OTHERS.to_vec();
            self.left.shuffle(random);
        }
        self.left.pop().unwrap_or(Blow::Kill)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_blow_falls_before_one_falls_again() {
        let mut random = StdRng::seed_from_u64(1);
        let mut deck = Deck::default();
        let drawn: Vec<Blow> = (0..Blow::OTHERS.len() * (KILLS + 1))
            .map(|_| deck.draw(&mut random))
            .collect();
        for blow in Blow::OTHERS {
            assert!(drawn.contains(&blow), "{blow:?}");
        }
        let kills = drawn.iter().filter(|blow| **blow == Blow::Kill).count();
        assert_eq!(kills, Blow::OTHERS.len() * KILLS);
    }
}
