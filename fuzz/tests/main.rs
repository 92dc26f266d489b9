//! What is stored in the corpora, and what it finds.

mod planted;
mod stored;
mod support;
