//! The rules of reading a source and of mapping what was read.

use super::{EDGES, HISTORIES, Rule, SALESFORCE, SLOTS, by};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "position-before-the-copy",
        invariant: 9,
        what: "changes are followed from a time before the first page",
        file: "extractors/salesforce/src/fetch.rs",
        find: "count::finish(api, &selection, *from, *read).await",
        replace: "{ let _ = from; count::finish(api, &selection, start(api, &selection).await?, *read).await }",
        test: by(HISTORIES, "no_history_loses_a_row"),
    },
    Rule {
        name: "lookback",
        invariant: 9,
        what: "rounds overlap, since a record may show long after its stamp",
        file: "extractors/salesforce/src/cursor.rs",
        find: "            since: (until - lookback).min(covered),",
        replace: "            since: (until - lookback.min(0)).min(covered),",
        test: by(HISTORIES, "no_history_loses_a_row"),
    },
    Rule {
        name: "open-transactions-hold-it-back",
        invariant: 9,
        what: "the position stays before the oldest open transaction",
        file: "extractors/salesforce/src/cursor.rs",
        find: "            since: (until - lookback).min(covered),",
        replace: "            since: until - lookback,",
        test: by(
            SALESFORCE,
            "cursor::tests::an_open_transaction_holds_the_position_back",
        ),
    },
    Rule {
        name: "a-page-is-keyed-by-stamp-and-id",
        invariant: 9,
        what: "equal stamps may lie on two pages",
        file: "extractors/salesforce/src/query.rs",
        find: "AND Id > '{id}'))",
        replace: "AND Id > '{id}' AND Id < '{id}'))",
        test: by(HISTORIES, "no_history_loses_a_row"),
    },
    Rule {
        name: "deletes-are-told",
        invariant: 9,
        what: "a record in the recycle bin is told as a delete",
        file: "extractors/salesforce/src/rows.rs",
        find: "change(&row, selection.deletable && deleted,",
        replace: "change(&row, false && selection.deletable && deleted,",
        test: by(HISTORIES, "no_history_loses_a_row"),
    },
    Rule {
        name: "a-log-too-short-asks",
        invariant: 8,
        what: "deletes that the source has forgotten stop the lane",
        file: "extractors/salesforce/src/deletes.rs",
        find: "            if earliest > from.deletes_since",
        replace: "            if false && earliest > from.deletes_since",
        test: by(EDGES, "a_log_that_is_too_short_asks_for_a_person"),
    },
    Rule {
        name: "every-slot-every-time",
        invariant: 8,
        what: "every transform yields every declared slot, filled or absent",
        file: "transformers/mapper/src/lib.rs",
        find: "            } else if let Some(reason) = slot.absent(&body) {",
        replace: "            } else if let Some(reason) = slot.absent(&body).filter(|_| false) {",
        test: by(
            SLOTS,
            "a_filtered_slot_is_absent_and_its_fields_stay_in_the_other",
        ),
    },
    Rule {
        name: "no-filled-field-is-lost",
        invariant: 8,
        what: "a filled field without a mapping passes in `custom`",
        file: "transformers/mapper/src/lib.rs",
        find: "            (free && !field.ignored).then(|| Custom {",
        replace: "            (free && false && !field.ignored).then(|| Custom {",
        test: by(SLOTS, "both_slots_are_filled"),
    },
];
