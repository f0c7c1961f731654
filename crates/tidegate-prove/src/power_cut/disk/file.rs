//! One file of a simulated disk: what is durable, what waits to be, and what a cut leaves of that.

use super::{Cut, Harm, Loss};
use rand::RngExt;
use rand::rngs::StdRng;
use std::ops::Range;

#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write {
        at: usize,
        offset: usize,
        data: Range<usize>,
    },
    Length {
        at: usize,
        length: usize,
    },
}

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    durable: Vec<u8>,
    pub(super) pending: Vec<Pending>,
    /// Bytes of failed syncs that nothing durable has replaced.
    orphans: Vec<(usize, Vec<u8>)>,
}

impl Pending {
    fn apply(&self, bytes: &mut Vec<u8>, data: &[u8]) {
        match self {
            Self::Write {
                offset, data: range, ..
            } => write(bytes, *offset, &data[range.clone()]),
            Self::Length { length, .. } => bytes.resize(*length, 0),
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl File {
    /// A file of these bytes, all of them durable.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        Self {
            durable: bytes,
            ..Self::default()
        }
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self, data: &[u8]) {
        for pending in std::mem::take(&mut self.pending) {
            match &pending {
                Pending::Write {
                    offset, data: range, ..
                } => self.replace_orphans(*offset..*offset + range.len()),
                Pending::Length { length, .. } => self.replace_orphans(*length..usize::MAX),
            }
            pending.apply(&mut self.durable, data);
        }
    }

    /// What was to be synced is in the kernel's memory only, and will never be written.
    pub(super) fn fail_sync(&mut self, data: &[u8]) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write {
                    offset, data: range, ..
                } => {
                    self.replace_orphans(offset..offset + range.len());
                    self.orphans.push((offset, data[range].to_vec()));
                }
                // Lengths are the file system's own, and come with its journal.
                Pending::Length { length, .. } => {
                    self.replace_orphans(length..usize::MAX);
                    self.durable.resize(length, 0);
                }
            }
        }
    }

    /// What programs see.
    pub(super) fn live(&self, data: &[u8]) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, orphan) in &self.orphans {
            write(&mut bytes, *offset, orphan);
        }
        for pending in &self.pending {
            pending.apply(&mut bytes, data);
        }
        bytes
    }

    /// Decides about the bytes of failed syncs.
    pub(super) fn forget(&mut self, cut: &Cut, random: &mut StdRng) {
        for (offset, orphan) in std::mem::take(&mut self.orphans) {
            tear(
                &mut self.durable,
                offset,
                &orphan,
                cut,
                random,
                &mut Harm::default(),
            );
        }
    }

    fn replace_orphans(&mut self, replaced: Range<usize>) {
        let mut left = Vec::with_capacity(self.orphans.len());
        for (offset, bytes) in self.orphans.drain(..) {
            let end = offset + bytes.len();
            if replaced.end <= offset || end <= replaced.start {
                left.push((offset, bytes));
                continue;
            }
            if offset < replaced.start {
                left.push((offset, bytes[..replaced.start - offset].to_vec()));
            }
            if replaced.end < end {
                left.push((replaced.end, bytes[replaced.end - offset..].to_vec()));
            }
        }
        self.orphans = left;
    }

    /// What a cut leaves.
    pub(super) fn after(
        &self,
        data: &[u8],
        cut: &Cut,
        until: usize,
        random: &mut StdRng,
        harm: &mut Harm,
    ) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (offset, orphan) in &self.orphans {
            match cut.loss {
                Loss::All => {}
                Loss::None => write(&mut bytes, *offset, orphan),
                _ => tear(&mut bytes, *offset, orphan, cut, random, harm),
            }
        }
        for pending in &self.pending {
            if cut.lengths_first
                && let Pending::Write {
                    offset, data: range, ..
                } = pending
                && bytes.len() < *offset + range.len()
            {
                bytes.resize(*offset + range.len(), 0);
            }
            let percent = random.random_range(0..100);
            let at = match pending {
                Pending::Write { at, .. } | Pending::Length { at, .. } => *at,
            };
            let kept = match cut.loss {
                Loss::All => false,
                Loss::None => true,
                Loss::Tail => at < until,
                Loss::Writes | Loss::Sectors | Loss::Garbage => percent < cut.kept_percent,
            };
            match pending {
                Pending::Write {
                    offset, data: range, ..
                } if matches!(cut.loss, Loss::Sectors | Loss::Garbage)
                    || (cut.loss == Loss::Tail && at == until) =>
                {
                    tear(&mut bytes, *offset, &data[range.clone()], cut, random, harm);
                }
                _ if kept => pending.apply(&mut bytes, data),
                _ => harm.lost_writes += 1,
            }
        }
        bytes
    }
}

/// Writes `data` sector by sector, as the cut has it.
fn tear(bytes: &mut Vec<u8>, offset: usize, data: &[u8], cut: &Cut, random: &mut StdRng, harm: &mut Harm) {
    let end = offset + data.len();
    let mut start = offset;
    let (mut kept_some, mut lost_some) = (false, false);
    // In order up to a sector, or each by itself.
    let breaks_at = random.random_range(offset..=end);
    while start < end {
        let stop = end.min((start / cut.sector + 1) * cut.sector);
        let part = &data[start - offset..stop - offset];
        let kept = if cut.loss == Loss::Tail {
            stop <= breaks_at
        } else {
            random.random_range(0..100) < cut.kept_percent
        };
        if cut.loss == Loss::Garbage && random.random_range(0..4) == 0 {
            harm.spoilt_sectors += 1;
            spoil(bytes, start, part, cut, random);
            lost_some = true;
        } else if kept {
            write(bytes, start, part);
            kept_some = true;
        } else {
            lost_some = true;
        }
        start = stop;
    }
    match (kept_some, lost_some) {
        (true, true) => harm.torn_writes += 1,
        (false, true) => harm.lost_writes += 1,
        _ => {}
    }
}

/// Leaves anything in the sector that `part` was being written to.
fn spoil(bytes: &mut Vec<u8>, start: usize, part: &[u8], cut: &Cut, random: &mut StdRng) {
    write(bytes, start, part);
    let sector = if cut.powersafe {
        start..start + part.len()
    } else {
        let first = start / cut.sector * cut.sector;
        first..bytes.len().min(first + cut.sector)
    };
    let sector = &mut bytes[sector];
    match random.random_range(0..3) {
        0 => sector.fill(0),
        1 => random.fill(sector),
        _ => {
            for _ in 0..random.random_range(1..=4) {
                let bit = random.random_range(0..sector.len() * 8);
                sector[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
