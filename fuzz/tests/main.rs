//! What is stored in the corpora, and what it finds.

mod changing;
mod planted;
mod stored;
mod support;
