//! A history: what is fixed, and a list of choices. It is made from a seed,
//! played, made shorter while it still fails, and printed.

use crate::rules::Rules;
use crate::world::{
    CHILDREN, Edit, Event, Fate, Key, Kind, PARENTS, REVOKE, SESSION, Setting, TABLES, Violation,
    World,
};

/// The choices of a history before the faults stop.
const LENGTH: usize = 400;
/// The most lines of a printed history.
const LINES: usize = 60;

/// One choice. Where it is not possible at its moment, nothing happens, so that
/// any part of a history is a history.
#[derive(Debug, Clone, Copy)]
pub enum Choice {
    Edit(Key, Edit),
    Tick(u64),
    Poll(usize, usize),
    End(usize),
    Lane(usize, usize),
    Tail(usize, usize, usize, bool),
    Marker(usize),
    Effect(usize),
    Answer(usize),
    Lose(usize),
    Start(usize),
    Kill(usize),
    Pause(usize),
    Resume(usize),
    Expel(usize),
    Rebalance,
    TimeOut(usize),
    Refuse(usize),
    Throttle,
    /// The worker learns how far an entity is covered.
    Cover(usize, usize),
    /// The worker searches for records that wait in vain.
    Search(usize),
    /// A person retries a dead letter.
    Retry(Key),
    /// The children's lane is held back, or let go.
    Hold(usize, bool),
}

/// A small generator (SplitMix64), so that a seed means the same for ever.
pub struct Random(u64);

impl Random {
    /// The generator of that seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A history.
#[derive(Debug, Clone)]
pub struct History {
    /// What is fixed.
    pub setting: Setting,
    /// What happens.
    pub choices: Vec<Choice>,
}

/// Makes the history of a seed while it is played. `kind` is by the seed where
/// it is not given. Returns it with the world at its end.
pub fn make(seed: u64, rules: Rules, kind: Option<Kind>) -> (History, World) {
    let mut random = Random::new(seed);
    let by_seed = random.one_of(&Kind::ALL);
    let setting = Setting {
        kind: kind.unwrap_or(by_seed),
        partitions: random.one_of(&[1, 2, 2, 2]),
        workers: random.one_of(&[2, 2, 3]),
        rules,
    };
    let mut world = World::new(setting);
    let mut chooser = Chooser {
        // Histories differ in how often something goes wrong, and in how many
        // keys share what happens.
        faults: random.one_of(&[2, 4, 8]),
        keys: random.one_of(&FOCUS),
        edits: 3 + random.below(10),
        stalled: None,
        next: Vec::new(),
        moved: false,
        random,
    };
    let mut choices = Vec::with_capacity(LENGTH + setting.workers);
    let starts = (0..setting.workers).map(Choice::Start);
    for choice in starts {
        perform(&mut world, choice);
        choices.push(choice);
    }
    let mut tried = 0;
    while choices.len() < LENGTH && tried < LENGTH * 12 && world.violation.is_none() {
        tried += 1;
        let choice = chooser.choose(&world);
        chooser.moved = perform(&mut world, choice);
        if chooser.moved {
            choices.push(choice);
        }
    }
    settle(&mut world);
    (History { setting, choices }, world)
}

/// The keys that a history is about.
const FOCUS: [&[Key]; 8] = [
    &[0],
    &[2, 1],
    &[3, 0],
    &[4, 1],
    &[0, 3, 4],
    &[0, 1, 2, 3, 4],
    &[5, 6],
    &[2, 3, 4, 5],
];

/// Makes choices.
struct Chooser {
    random: Random,
    faults: usize,
    keys: &'static [Key],
    edits: usize,
    /// A lane that does nothing for so many choices: its thread waits for a
    /// slow answer, or is not given the processor.
    stalled: Option<(usize, usize, usize)>,
    /// What comes next, last first.
    next: Vec<Choice>,
    /// Whether the last choice was possible; else faults, which always are,
    /// would be most of what happens.
    moved: bool,
}

impl Chooser {
    fn choose(&mut self, world: &World) -> Choice {
        if let Some(choice) = self.next.pop() {
            return choice;
        }
        let random = &mut self.random;
        let mut place = random.below(world.setting.workers);
        if !world.workers[place].runs() {
            place = random.below(world.setting.workers);
        }
        let nth = random.below(64);
        self.stalled = self
            .stalled
            .filter(|(_, _, left)| *left > 0)
            .map(|(place, lane, left)| (place, lane, left - 1));
        if self.moved && random.below(100) < self.faults {
            return self.fault(world, place, nth);
        }
        match random.below(100) {
            0..=33 => {
                let lane = random.one_of(&[PARENTS, CHILDREN]);
                match self.stalled {
                    Some((stalled, other, _)) if (stalled, other) == (place, lane) => {
                        Choice::Poll(place, nth)
                    }
                    _ => Choice::Lane(place, lane),
                }
            }
            34..=51 => Choice::Poll(place, nth),
            52..=65 => {
                let (table, p) = (random.below(TABLES), random.below(world.setting.partitions));
                Choice::Tail(place, table, p, random.below(3) == 0)
            }
            66..=77 => Choice::Marker(nth),
            78..=83 => Choice::Effect(nth),
            84..=89 => Choice::Answer(nth),
            90 | 91 => self.edit(),
            92 => match random.below(5) {
                0 | 1 => Choice::Cover(place, random.below(2)),
                2 => Choice::Search(place),
                3 => Choice::Retry(random.one_of(self.keys)),
                _ => Choice::Hold(place, random.below(2) == 0),
            },
            93 => Choice::End(place),
            94 => Choice::Start(place),
            95 | 96 => Choice::Resume(place),
            97 => Choice::Expel(place),
            98 => Choice::TimeOut(nth),
            _ => Choice::Tick(random.one_of(&[1, 100, 1_000, 2_000, 5_000])),
        }
    }

    fn edit(&mut self) -> Choice {
        if self.edits == 0 {
            return Choice::Tick(1);
        }
        self.edits -= 1;
        let edits = [
            Edit::New,
            Edit::New,
            Edit::New,
            Edit::Refused,
            Edit::Delete,
            Edit::Older,
            Edit::Same,
            Edit::Remap,
        ];
        let key = self.random.one_of(self.keys);
        Choice::Edit(key, self.random.one_of(&edits))
    }

    /// Something goes wrong. Some faults come in company: who is silent for
    /// long is expelled, and what was asked for stays unanswered.
    fn fault(&mut self, world: &World, place: usize, nth: usize) -> Choice {
        let random = &mut self.random;
        match random.below(16) {
            0 => Choice::Kill(place),
            1 => Choice::Pause(place),
            2..=4 => {
                self.next = vec![Choice::Expel(place), Choice::Tick(SESSION)];
                Choice::Pause(place)
            }
            5 => {
                self.next = vec![Choice::Expel(place), Choice::Tick(SESSION)];
                Choice::Kill(place)
            }
            6..=8 => Choice::Rebalance,
            9 | 10 => {
                let lane = random.one_of(&[PARENTS, CHILDREN]);
                let long = 20 + random.below(60);
                self.stalled = Some((place, lane, long));
                self.next = vec![Choice::Tick(REVOKE), Choice::Poll(place, nth)];
                Choice::Rebalance
            }
            11 | 12 => Choice::Lose(nth),
            13 if world.refusing.contains(&true) || random.below(2) == 0 => {
                Choice::Refuse(random.below(2))
            }
            13 => Choice::Throttle,
            _ => Choice::Tick(random.one_of(&[6_000, 9_000, 21_000, 27_000])),
        }
    }
}

/// Plays one choice. `false` where it is not possible now.
fn perform(world: &mut World, choice: Choice) -> bool {
    let nth = |count: usize, nth: usize| (count > 0).then(|| nth % count);
    match choice {
        Choice::Edit(key, edit) => world.edit(key, edit),
        Choice::Tick(millis) => {
            world.tick(millis);
            true
        }
        Choice::Poll(place, choice) => world.poll(place, choice),
        Choice::End(place) => world.end(place),
        Choice::Lane(place, lane) => world.lane(place, lane),
        Choice::Tail(place, table, p, late) => world.follow(place, table, p, late),
        Choice::Marker(number) => {
            let missing = world.missing_markers();
            let Some(number) = nth(missing.len(), number) else {
                return false;
            };
            let (transaction, place) = missing[number];
            world.mark(transaction, place);
            true
        }
        Choice::Effect(number) => {
            let flying: Vec<usize> = (0..world.requests.len())
                .filter(|r| !world.requests[*r].over)
                .collect();
            let Some(number) = nth(flying.len(), number) else {
                return false;
            };
            world.take_effect(flying[number]);
            true
        }
        Choice::Answer(number) => {
            let answered: Vec<usize> = (0..world.requests.len())
                .filter(|r| world.requests[*r].awaited && world.requests[*r].answer.is_some())
                .collect();
            nth(answered.len(), number).is_some_and(|at| world.answer(answered[at], false))
        }
        Choice::Lose(number) => {
            let awaited: Vec<usize> = (0..world.requests.len())
                .filter(|r| world.requests[*r].awaited)
                .collect();
            nth(awaited.len(), number).is_some_and(|at| world.answer(awaited[at], true))
        }
        Choice::Start(place) => world.start(place),
        Choice::Kill(place) => world.kill(place, "is killed"),
        Choice::Pause(place) => {
            let worker = &mut world.workers[place];
            if !worker.runs() {
                return false;
            }
            worker.paused = true;
            worker.silent_since = world.now;
            world.count(Event::Pauses);
            world.say(&format!("worker {place}"), || "is paused".to_owned());
            true
        }
        Choice::Resume(place) => {
            let worker = &mut world.workers[place];
            if !worker.paused {
                return false;
            }
            worker.paused = false;
            world.say(&format!("worker {place}"), || "goes on".to_owned());
            true
        }
        Choice::Expel(place) => {
            let worker = &world.workers[place];
            let silent = !worker.runs() && world.now >= worker.silent_since + SESSION;
            if !silent || !world.group.members.contains_key(&place) {
                return false;
            }
            world.expel(place);
            true
        }
        Choice::Rebalance => {
            if world.group.preparing || world.group.members.is_empty() {
                return false;
            }
            world.prepare();
            true
        }
        Choice::TimeOut(number) => {
            let open: Vec<usize> = (0..world.transactions.len())
                .filter(|t| world.transactions[*t].fate == Fate::Open)
                .collect();
            nth(open.len(), number).is_some_and(|at| world.time_out(open[at]))
        }
        Choice::Refuse(lane) => {
            world.refusing[lane] = !world.refusing[lane];
            let refuses = world.refusing[lane];
            world.say("target", || {
                let what = if refuses { "refuses" } else { "takes" };
                format!("{what} everything of entity {lane} (403)")
            });
            true
        }
        Choice::Cover(place, entity) => world.cover(place, entity),
        Choice::Search(place) => world.search(place),
        Choice::Retry(key) => world.retry(key),
        Choice::Hold(place, hold) => world.hold_back(place, hold),
        Choice::Throttle => {
            world.throttling = !world.throttling;
            true
        }
    }
}

/// Faults stop, a person mends what is blocked, and everything goes on until
/// nothing moves any more; then the end is checked.
fn settle(world: &mut World) {
    if world.violation.is_some() {
        return;
    }
    world.refusing = [false; 2];
    world.throttling = false;
    // What the source wrote in this very moment is in the past.
    world.tick(1);
    world.say("", || {
        "faults stop; everything goes on until it is quiet".to_owned()
    });
    let mut ticks = 0;
    for _ in 0..2_000 {
        if world.violation.is_some() {
            return;
        }
        if round(world) {
            continue;
        }
        let waits = world.workers.iter().any(|worker| worker.waits())
            || world.transactions.iter().any(|t| !t.complete())
            || world.group.preparing
            || world.requests.iter().any(|request| !request.over);
        if !waits {
            world.check_quiet();
            return;
        }
        ticks += 1;
        if ticks > 200 {
            break;
        }
        world.tick(1_000);
    }
    world.broken(
        "it never gets quiet",
        format!("after {} s", world.now / 1_000),
    );
}

fn round(world: &mut World) -> bool {
    let mut did = false;
    for place in 0..world.setting.workers {
        did |= perform(world, Choice::Resume(place));
        if world.workers[place].blocked() {
            did |= world.kill(place, "is ended by a person");
        }
        did |= world.start(place);
        for choice in 0..4 {
            did |= world.poll(place, choice);
        }
        for table in 0..TABLES {
            for p in 0..world.setting.partitions {
                while world.follow(place, table, p, false) {
                    did = true;
                }
            }
        }
        for lane in [PARENTS, CHILDREN] {
            while world.violation.is_none() && world.lane(place, lane) {
                did = true;
                for choice in [Choice::Marker(0), Choice::Effect(0), Choice::Answer(0)] {
                    while perform(world, choice) {}
                }
            }
        }
        did |= world.end(place);
        did |= world.hold_back(place, false);
        for entity in [PARENTS, CHILDREN] {
            did |= world.cover(place, entity);
        }
        did |= world.search(place);
    }
    for choice in [Choice::Marker(0), Choice::Effect(0), Choice::Answer(0)] {
        while perform(world, choice) {
            did = true;
        }
    }
    for number in 0..world.transactions.len() {
        did |= world.time_out(number);
    }
    did
}

/// Plays a history again.
pub fn play(history: &History, trace: bool) -> World {
    let mut world = World::new(history.setting);
    world.trace = trace.then(Vec::new);
    for choice in &history.choices {
        if world.violation.is_some() {
            return world;
        }
        perform(&mut world, *choice);
    }
    settle(&mut world);
    world
}

/// Leaves out whatever is not needed for the same violation.
pub fn shrink(mut history: History, violation: &Violation) -> History {
    let fails = |choices: &[Choice]| {
        let shorter = History {
            setting: history.setting,
            choices: choices.to_vec(),
        };
        play(&shorter, false)
            .violation
            .is_some_and(|other| other.what == violation.what)
    };
    let mut choices = std::mem::take(&mut history.choices);
    let mut size = choices.len() / 2;
    while size > 0 {
        let before = choices.len();
        let mut from = 0;
        while from < choices.len() {
            let until = (from + size).min(choices.len());
            let shorter = [&choices[..from], &choices[until..]].concat();
            if fails(&shorter) {
                choices = shorter;
            } else {
                from = until;
            }
        }
        if choices.len() == before || size > 1 {
            size /= 2;
        }
    }
    History { choices, ..history }
}

/// A history as a table of its events.
pub fn print(history: &History, title: &str) -> String {
    let world = play(history, true);
    let mut lines = world.trace.unwrap_or_default();
    if lines.len() > LINES {
        let left_out = lines.len() - LINES + 1;
        let note = format!("           ({left_out} lines left out)");
        lines.splice(LINES / 2..LINES / 2 + left_out, [note]);
    }
    let Setting {
        kind,
        partitions,
        workers,
        ..
    } = history.setting;
    format!(
        "{title}\n  target {kind:?}, {partitions} partition(s), {workers} workers\n{}\n",
        lines.join("\n")
    )
}
