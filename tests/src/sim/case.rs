//! One world: a seed and the knobs it drew, and perhaps a bug that is put in.
//!
//! A case that found a bug is kept as a file with a sentence about the bug (`tests/pinned/`). Its
//! knobs are written down, so that a choice more among them does not make another world of it;
//! knobs that are newer than the file are off.

use serde::{Deserialize, Serialize};

use super::knobs::Knobs;
use super::mutant::Mutant;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// What the bug was.
    pub story: String,
    /// What all chance follows from.
    pub seed: u64,
    pub(crate) knobs: Knobs,
    /// The bug that was put in.
    #[serde(skip)]
    pub(crate) mutant: Option<Mutant>,
    /// Print everything that happens.
    #[serde(skip)]
    pub(crate) print: bool,
}

impl Case {
    /// The world of a seed.
    pub fn of(seed: u64) -> Self {
        Self { story: String::new(), seed, knobs: Knobs::draw(seed), mutant: None, print: false }
    }

    /// Reads what [`Case::to_text`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// As text, to be kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("knobs are plain numbers") + "\n"
    }

    /// With a story.
    #[must_use]
    pub fn with_story(mut self, story: &str) -> Self {
        story.clone_into(&mut self.story);
        self
    }

    /// With a bug put in.
    #[must_use]
    pub fn with(mut self, mutant: Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// Printing everything that happens.
    #[must_use]
    pub fn printed(mut self) -> Self {
        self.print = true;
        self
    }
}
