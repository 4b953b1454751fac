//! The suite of every extractor, against a stand-in with a clock of its own.

mod model;

use drover_pipeline::testing::extractor::{Fault, checks, faults};
use model::Model;

macro_rules! suite {
    ($( $name:ident => $check:expr; )*) => {
        $( #[tokio::test] async fn $name() { $check.await; } )*
    };
}

suite! {
    every_record_once => checks::every_record_once::<Model>();
    every_page_is_a_restart_point => checks::every_page_is_a_restart_point::<Model>();
    changes_during_the_first_copy => checks::changes_during_the_first_copy::<Model>();
    equal_stamps_on_a_page_boundary => checks::equal_stamps_on_a_page_boundary::<Model>();
    late_records => checks::late_records::<Model>();
    same_record_same_bytes => checks::same_record_same_bytes::<Model>();
    every_id => checks::every_id::<Model>();
    idle_is_quiet => checks::idle_is_quiet::<Model>();
    wrong_credentials => checks::wrong_credentials::<Model>();
    fault_rate_limit => faults::at_every_request::<Model>(Fault::RateLimit);
    fault_server_error => faults::at_every_request::<Model>(Fault::ServerError);
    fault_cut_before => faults::at_every_request::<Model>(Fault::CutBefore);
    fault_cut_after => faults::at_every_request::<Model>(Fault::CutAfter);
    fault_slow => faults::at_every_request::<Model>(Fault::Slow);
    fault_expired_token => faults::at_every_request::<Model>(Fault::ExpiredToken);
    fault_html_page => faults::at_every_request::<Model>(Fault::HtmlPage);
    fault_not_json => faults::at_every_request::<Model>(Fault::NotJson);
    fault_truncated => faults::at_every_request::<Model>(Fault::Truncated);
    token_refused_again => faults::token_refused_again::<Model>();
}
