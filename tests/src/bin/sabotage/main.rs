//! Switches off one rule of Drover at a time and demands that a named test
//! turns red. A rule that nobody misses fails the command: either it is not
//! needed, or its test cannot fail.
//!
//! A rule is switched off by changing the source text in a copy of the tree, so
//! that the product itself has no switch. The text to change must be found
//! exactly once, or the rule's entry is out of date, which fails too.

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

mod copy;
mod rules;

use copy::{Copy, Outcome, Profile};
use rules::{Rule, Test};

const USAGE: &str = "usage: drover-sabotage [--list] [--dev] [--sample N [--seed S]] [RULE]...

  --list      the rules, and the tests that must notice
  --dev       takes the dependencies of a dev build instead of a release build
  --sample N  N rules, chosen by the seed (default: the day), of those whose
              tests need no Kafka, no PostgreSQL and no program of Drover;
              their tests are not run unharmed first, `tests/run unit` does that
Run in the root of the tree. Tests find Kafka and PostgreSQL as `tests/run` sets
them up: `tests/run sabotage`.";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("sabotage: {message}");
            ExitCode::from(3)
        }
    }
}

/// What the command line asks for.
struct Wanted {
    rules: Vec<&'static Rule>,
    profile: Profile,
    is_sample: bool,
}

fn run() -> Result<bool, String> {
    let Some(wanted) = wanted()? else {
        return Ok(true);
    };
    let copy = Copy::make(wanted.profile)?;
    if !wanted.is_sample {
        unharmed(&copy, &wanted.rules)?;
    }
    println!("{:<36} {:<35} {:>7}", "RULE", "NOTICED BY", "SECONDS");
    let mut missed = Vec::new();
    for rule in &wanted.rules {
        let began = Instant::now();
        let harmed = copy.harm(rule)?;
        let outcome = copy.test(rule.test.place, &[rule.test.name])?;
        harmed.mend()?;
        let result = match &outcome {
            Outcome::Red(_) => short(rule.test.name),
            Outcome::Green => "NOBODY".to_owned(),
            Outcome::Broken(why) => {
                eprintln!("{}: {why}", rule.name);
                "no evidence: it does not run".to_owned()
            }
        };
        if !matches!(outcome, Outcome::Red(_)) {
            missed.push(rule.name);
        }
        let seconds = began.elapsed().as_secs();
        println!("{:<36} {result:<35} {seconds:>7}", rule.name);
    }
    let noticed = wanted.rules.len() - missed.len();
    println!(
        "{noticed} of {} rules were missed by a test",
        wanted.rules.len()
    );
    for name in &missed {
        println!("NOT NOTICED: {name}");
    }
    Ok(missed.is_empty())
}

/// Proves that the tests of these rules are green while no rule is harmed.
fn unharmed(copy: &Copy, rules: &[&Rule]) -> Result<(), String> {
    let mut places: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for Rule { test, .. } in rules {
        let names = places.entry(test.place).or_default();
        if !names.contains(&test.name) {
            names.push(test.name);
        }
    }
    for (place, names) in places {
        let began = Instant::now();
        eprintln!("unharmed: {} of {}", names.len(), place);
        match copy.test(place, &names)? {
            Outcome::Green => {}
            Outcome::Red(which) => {
                return Err(format!("red without any sabotage: {which}"));
            }
            Outcome::Broken(why) => return Err(format!("{place} does not run: {why}")),
        }
        let took: Duration = began.elapsed();
        eprintln!("unharmed: {place} is green, {} s", took.as_secs());
    }
    Ok(())
}

/// The last part of a test's path, in the width of the table.
fn short(name: &str) -> String {
    let name = name.rsplit("::").next().unwrap_or(name);
    name.chars().take(35).collect()
}

/// What the command line asks for; `None` when it only lists.
fn wanted() -> Result<Option<Wanted>, String> {
    let mut arguments = env::args().skip(1);
    let (mut names, mut sample, mut seed) = (Vec::new(), None, None);
    let mut profile = Profile::Release;
    let number = |text: Option<String>| -> Result<usize, String> {
        let text = text.ok_or(USAGE)?;
        text.parse().map_err(|_| format!("`{text}` is no number"))
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => {
                for rule in rules::all() {
                    println!("{}\n    {}. {}", rule.name, rule.invariant, rule.what);
                    println!("    {}: {}", rule.test.place, rule.test.name);
                }
                return Ok(None);
            }
            "--dev" => profile = Profile::Dev,
            "--sample" => sample = Some(number(arguments.next())?),
            "--seed" => seed = Some(number(arguments.next())?),
            name if name.starts_with('-') => return Err(USAGE.to_owned()),
            name => names.push(name.to_owned()),
        }
    }
    for name in &names {
        if !rules::all().any(|rule| rule.name == name) {
            return Err(format!("no rule `{name}`; --list shows them"));
        }
    }
    let mut rules: Vec<&Rule> = rules::all()
        .filter(|rule| names.is_empty() || names.iter().any(|name| name == rule.name))
        .collect();
    if let Some(sample) = sample {
        rules.retain(|rule| is_quick(&rule.test));
        // Another one each day, so that all of them have their turn.
        let day = || {
            UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_secs() / 86_400)
        };
        let seed = seed.unwrap_or_else(|| usize::try_from(day()).unwrap_or(0));
        let first = seed * sample % rules.len().max(1);
        rules.rotate_left(first);
        rules.truncate(sample.max(1));
    }
    Ok(Some(Wanted {
        rules,
        profile,
        is_sample: sample.is_some(),
    }))
}

/// Whether the test needs no services, and can be built with the dependencies as
/// the whole workspace has them: a target of a name that no other package has.
fn is_quick(test: &Test) -> bool {
    test.place.is_alone() && !test.place.broker && test.place.package != "drover-tests"
}
