//! The rules that prove that everything is there, or stop what would lose it.

use super::{PIPELINE, Rule, by, programs};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "balance-joins-both-ways",
        invariant: 8,
        what: "what a later stage knows and nobody has read is red",
        file: "pipeline/src/balance.rs",
        find: "                () if !has(Marks::FOREIGN) || has(Marks::CANONICAL) || has(Marks::ENTRY) => {\n                    red(Fault::NoRaw)",
        replace: "                () if !has(Marks::FOREIGN) || has(Marks::CANONICAL) || has(Marks::ENTRY) => {\n                    Standing::Applied",
        test: by(
            PIPELINE,
            "balance::tests::every_place_and_every_way_to_be_in_none",
        ),
    },
    Rule {
        name: "balance-wants-the-outcome",
        invariant: 8,
        what: "a record that a loader has passed is somewhere",
        file: "pipeline/src/balance.rs",
        find: "        if !reaches {",
        replace: "        if !reaches && has(Marks::PENDING) {",
        test: by(
            PIPELINE,
            "balance::tests::every_place_and_every_way_to_be_in_none",
        ),
    },
    Rule {
        name: "balance-knows-one-place",
        invariant: 8,
        what: "what is applied is not parked as well",
        file: "pipeline/src/balance.rs",
        find: "            return red(Fault::ParkedLeft);",
        replace: "            return Standing::Applied;",
        test: by(
            PIPELINE,
            "balance::tests::every_place_and_every_way_to_be_in_none",
        ),
    },
    Rule {
        name: "unbalanced-is-not-green",
        invariant: 8,
        what: "a run whose balance does not hold is no success",
        file: "orchestrator/src/run.rs",
        find: "let red = (!balance.balanced).then(|| balance::red(&balance));",
        replace: "let red = (false && !balance.balanced).then(|| balance::red(&balance));",
        test: by(
            programs("balance"),
            "a_record_taken_out_of_any_topic_is_named",
        ),
    },
    Rule {
        name: "a-body-is-what-was-written",
        invariant: 8,
        what: "a body in the object store that was altered stops its lane",
        file: "pipeline/src/bodies.rs",
        find: "        if Stored::of(&body) != *stored {",
        replace: "        if false && Stored::of(&body) != *stored {",
        test: by(
            PIPELINE,
            "bodies::tests::a_body_that_is_gone_or_altered_is_told",
        ),
    },
    Rule {
        name: "topics-made-anew-are-noticed",
        invariant: 8,
        what: "a topic that was deleted and made anew stops its readers",
        file: "pipeline/src/control.rs",
        find: "            if found.map(|found| found.incarnation) != expected {",
        replace: "            if false && found.map(|found| found.incarnation) != expected {",
        test: by(
            programs("bad_input"),
            "wrong_secrets_and_lost_tables_stop_what_they_must",
        ),
    },
    Rule {
        name: "a-shorter-table-is-refused",
        invariant: 8,
        what: "without its entries a loader would create everything again",
        file: "pipeline/src/load/run.rs",
        find: "                if place.partition == partition && promised > end {",
        replace: "                if false && place.partition == partition && promised > end {",
        test: by(
            programs("bad_input"),
            "wrong_secrets_and_lost_tables_stop_what_they_must",
        ),
    },
    Rule {
        name: "a-mapping-that-empties-asks",
        invariant: 7,
        what: "a mapping that takes away much of the target waits for a person",
        file: "pipeline/src/load/tables.rs",
        find: "        if (now + before) * MOST_EMPTIED <= all {",
        replace: "        if true || (now + before) * MOST_EMPTIED <= all {",
        test: by(
            programs("remap"),
            "a_remap_writes_what_changed_and_asks_the_source_nothing",
        ),
    },
];
