//! A walk through every choice there is.

use super::MISBEHAVIOURS_MAX;

/// Walks a tree of choices depth first: each run follows one path, then the last choice that has
/// another way is changed. The first way of a choice is good behaviour and costs nothing.
#[derive(Default)]
pub struct Choices {
    pub path: Vec<(usize, usize)>,
    at: usize,
    misbehaved: u32,
}

impl Choices {
    pub fn pick(&mut self, ways: usize) -> usize {
        let ways = if self.misbehaved < MISBEHAVIOURS_MAX { ways } else { 1 };
        if self.at == self.path.len() {
            self.path.push((0, ways));
        }
        let (way, _) = self.path[self.at];
        self.at += 1;
        self.misbehaved += u32::from(way > 0);
        way
    }

    /// The next path; false when all have been walked.
    pub fn advance(&mut self) -> bool {
        (self.at, self.misbehaved) = (0, 0);
        while let Some((way, ways)) = self.path.pop() {
            if way + 1 < ways {
                self.path.push((way + 1, ways));
                return true;
            }
        }
        false
    }
}
