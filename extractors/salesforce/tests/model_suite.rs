//! The suite of every extractor, against a stand-in with a clock of its own, by
//! both ways of making the first copy.

mod model;

mod by_rest {
    use super::model::Model;

    drover_pipeline::extractor_suite!(Model);
}

mod by_bulk {
    use super::model::BulkModel;

    drover_pipeline::extractor_suite!(BulkModel);
}
