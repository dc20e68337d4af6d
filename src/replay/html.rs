//! One page of a log, for a browser: figures of all chosen events, and the newest of them to search in.
//!
//! It needs no network and trusts no text: data stand in blocks that no script engine runs, escaped so that nothing in
//! them can end one, and a policy lets run one script and one style, by their hashes.

mod data;
mod file;
mod totals;

use std::collections::VecDeque;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::{ReplayError, Scan};
use crate::chat::{Event, Record};

pub use file::PageFile;

use data::{About, Block, put_block};
use totals::Totals;

/// The most events that a page holds; figures are of all.
const PAGE_EVENTS_MAX: usize = 200_000;
/// The most bytes of event lines that a page holds, as they stand in the log.
const PAGE_LINES_BYTES_MAX: usize = 48 << 20;
/// Events in one block: a browser takes in a block at once, and must not stutter.
const BLOCK_EVENTS_MAX: usize = 1_000;
/// Bytes of event lines after which a block is ended.
const BLOCK_LINES_BYTES: usize = 256 << 10;

const TEMPLATE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// Why no page was written.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// An event cannot be read or understood.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It cannot be written.
    #[error("the page cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// What a page shows.
#[derive(Debug)]
pub struct Page {
    /// The name of the log.
    source: String,
    /// Which events were asked for, in words.
    conditions: Vec<String>,
    totals: Totals,
    newest: Newest,
}

impl Page {
    /// Takes in the events of a scan.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn of(scan: &mut Scan, source: String) -> Result<Self, ReplayError> {
        let conditions = scan.filter.conditions();
        let (mut totals, mut newest) = (Totals::default(), Newest::default());
        scan.for_each(|event| {
            totals.count(event);
            newest.push(event.bytes);
            Ok::<_, ReplayError>(())
        })?;
        Ok(Self { source, conditions, totals, newest })
    }

    /// How many events were chosen.
    pub fn events(&self) -> u64 {
        self.totals.stats.events
    }

    /// How many of them, the newest, it holds.
    pub fn held(&self) -> usize {
        self.newest.lines.len()
    }

    /// Writes the page.
    ///
    /// # Errors
    /// An event cannot be understood, or `out` fails.
    pub fn put(&self, out: &mut impl Write) -> Result<(), PageError> {
        let mut rest = TEMPLATE;
        while let Some((before, (mark, behind))) =
            rest.split_once("{{").and_then(|(before, rest)| Some((before, rest.split_once("}}")?)))
        {
            out.write_all(before.as_bytes())?;
            match mark {
                "policy" => out.write_all(policy().as_bytes())?,
                "style" => out.write_all(STYLE.as_bytes())?,
                "script" => out.write_all(SCRIPT.as_bytes())?,
                "about" => put_block("about", &About::of(self), out)?,
                "events" => self.put_events(out)?,
                other => unreachable!("the template has no mark {other:?}"),
            }
            rest = behind;
        }
        Ok(out.write_all(rest.as_bytes())?)
    }

    fn put_events(&self, out: &mut impl Write) -> Result<(), PageError> {
        let (mut block, mut bytes) = (Block::default(), 0);
        for line in &self.newest.lines {
            let seq = super::line::seq(line).unwrap_or_default();
            block.push(&Event::decode(line).map_err(|source| ReplayError::Event { seq, source })?);
            bytes += line.len();
            if block.len() == BLOCK_EVENTS_MAX || bytes >= BLOCK_LINES_BYTES {
                put_block("events", &std::mem::take(&mut block), out)?;
                bytes = 0;
            }
        }
        if block.len() > 0 {
            put_block("events", &block, out)?;
        }
        Ok(())
    }
}

/// The newest lines, within bounds.
#[derive(Debug, Default)]
struct Newest {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Newest {
    fn push(&mut self, line: &[u8]) {
        let mut place = Vec::new();
        self.bytes += line.len();
        while self.lines.len() >= PAGE_EVENTS_MAX || (self.bytes > PAGE_LINES_BYTES_MAX && !self.lines.is_empty()) {
            place = self.lines.pop_front().unwrap_or_default();
            self.bytes -= place.len();
        }
        place.clear();
        place.extend_from_slice(line);
        // The room of a long line would stay with a short one.
        if place.capacity() > 2 * line.len() {
            place.shrink_to_fit();
        }
        self.lines.push_back(place);
    }
}

/// What a browser may do with the page: run its script, use its style, and nothing else.
fn policy() -> String {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

#[cfg(test)]
mod tests;
