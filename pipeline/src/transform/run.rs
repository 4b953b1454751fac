//! The transformer's loop.
