//! Parents that never come: when it is known that a record will wait in vain
//! for what it refers to. Pure; the simulation asks the same functions.

use std::sync::LazyLock;

use crate::record::{AbsentReason, CanonicalKey, Millis};

/// For how long behind a child's own modification its parent's object must be
/// covered before the parent counts as missing, by the source's clock: sources
/// show records late. 30 s, or what `DROVER_ORPHAN_GRACE_MS` says. A parent that
/// shows even later heals its children.
pub fn grace() -> Millis {
    static GRACE: LazyLock<Millis> = LazyLock::new(|| {
        let millis = std::env::var("DROVER_ORPHAN_GRACE_MS").ok();
        let millis = millis.and_then(|text| text.parse().ok());
        millis.unwrap_or(30_000)
    });
    *GRACE
}

/// The most steps that are gone from parent to parent in search of a circle.
const LONGEST_CIRCLE: usize = 1_000;

/// What a loader knows of a record that another one refers to, and that has no
/// record in the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sight {
    /// Neither its object nor its slot is migrated into this target.
    pub unmigrated: bool,
    /// Its entry: the target has nothing for it, as it should.
    pub absent: Option<AbsentReason>,
    /// It is on its way or waits for something of its own: Pending, parked, or
    /// dead for a reason that can be mended.
    pub underway: bool,
    /// It is itself a dead letter whose parent never comes.
    pub orphan: bool,
    /// Up to when everything that the source had of its object has reached the
    /// loaders' tables, by the source's clock and less the [`grace`]; `None`
    /// while the first copy is under way.
    pub covered: Option<Millis>,
}

/// Why a parent never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its object or slot is no part of the migration.
    NotMigrated,
    /// The transformer wrote that it has nothing for its slot.
    Absent(AbsentReason),
    /// It waits in vain itself.
    Orphan,
    /// The source was read well past the child, and never showed it.
    NotInSource,
}

impl Why {
    /// The reason as the end of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Why::NotMigrated => "its object is not migrated into this target",
            Why::Absent(AbsentReason::Deleted) => "the source has deleted it",
            Why::Absent(AbsentReason::Filtered) => "the mapping's filter leaves it out",
            Why::Absent(AbsentReason::SlotEmpty) => "its record has nothing for this slot",
            Why::Orphan => "its own parent never comes",
            Why::NotInSource => "the source was read past it and does not show it",
        }
    }
}

/// Whether that parent will never come for a child of that source version.
///
/// "Never" is what can be known: each of these can be undone in the source, and
/// then the child goes on by itself.
pub fn never(parent: &Sight, child: Millis) -> Option<Why> {
    if parent.unmigrated {
        return Some(Why::NotMigrated);
    }
    if let Some(reason) = parent.absent {
        return Some(Why::Absent(reason));
    }
    if parent.orphan {
        return Some(Why::Orphan);
    }
    if parent.underway {
        return None;
    }
    parent
        .covered
        .is_some_and(|covered| covered >= child)
        .then_some(Why::NotInSource)
}

/// The circle that a child would close by waiting for that parent: the keys
/// from the parent back to the child. `waits_for` says for which record a key
/// waits, be it parked or dead.
pub fn circle(
    child: &CanonicalKey,
    parent: &CanonicalKey,
    waits_for: impl Fn(&CanonicalKey) -> Option<CanonicalKey>,
) -> Option<Vec<CanonicalKey>> {
    let mut way = vec![parent.clone()];
    while way.last() != Some(child) {
        let next = waits_for(way.last()?)?;
        // A circle further up: those within it see to it.
        if way.len() > LONGEST_CIRCLE || way.contains(&next) {
            return None;
        }
        way.push(next);
    }
    Some(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_never_comes_only_when_that_is_known() {
        let copied = Sight {
            covered: Some(100_000),
            ..Sight::default()
        };
        let table = [
            ("nothing known yet", Sight::default(), None),
            ("read past the child", copied, Some(Why::NotInSource)),
            (
                "read up to the child only",
                Sight {
                    covered: Some(10_000 - 1),
                    ..copied
                },
                None,
            ),
            (
                "there, but parked or dead",
                Sight {
                    underway: true,
                    ..copied
                },
                None,
            ),
            (
                "an orphan itself",
                Sight {
                    orphan: true,
                    underway: true,
                    ..copied
                },
                Some(Why::Orphan),
            ),
            (
                "deleted, during the copy",
                Sight {
                    absent: Some(AbsentReason::Deleted),
                    ..Sight::default()
                },
                Some(Why::Absent(AbsentReason::Deleted)),
            ),
            (
                "of an object that is not migrated",
                Sight {
                    unmigrated: true,
                    ..Sight::default()
                },
                Some(Why::NotMigrated),
            ),
        ];
        for (name, sight, expected) in table {
            assert_eq!(never(&sight, 10_000), expected, "{name}");
        }
    }

    #[test]
    fn a_circle_is_found_from_each_of_its_members_and_from_nobody_else() {
        let key = |n: u32| CanonicalKey::parse(&format!("s/o/{n}#x")).expect("a key");
        // 1 → 2 → 3 → 1, and 9 → 1.
        let waits_for = |of: &CanonicalKey| match of.parts().2 {
            "1" => Some(key(2)),
            "2" => Some(key(3)),
            "3" | "9" => Some(key(1)),
            _ => None,
        };
        let found = circle(&key(1), &key(2), waits_for);
        assert_eq!(found, Some(vec![key(2), key(3), key(1)]));
        assert_eq!(circle(&key(4), &key(4), waits_for), Some(vec![key(4)]));
        assert_eq!(circle(&key(9), &key(1), waits_for), None);
        assert_eq!(circle(&key(5), &key(6), waits_for), None);
    }
}
