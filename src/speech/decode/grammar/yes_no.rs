//! Yes or no.

use super::{Extent, Grammar, Meaning, Spoken};
use crate::speech::word::Word;

pub struct YesNo;

/// Meaningless words beside it: "well, yes", "no, that's wrong". With more it is talk.
const OTHERS_MAX: usize = 3;

impl Grammar for YesNo {
    fn read(&self, words: &[Word], meaning: &mut Meaning) -> Option<Extent> {
        if words.iter().filter(|word| **word == Word::Other).count() > OTHERS_MAX {
            return None;
        }
        let mut said = words.iter().filter(|word| **word != Word::Other);
        let Some(first) = said.next() else { return Some(Extent::Short) };
        let answer = match first {
            Word::Yes => Spoken::Yes,
            Word::No => Spoken::No,
            _ => return None,
        };
        meaning.word = Some(answer);
        // "No, no." is a no; "no, yes" is nothing.
        said.all(|word| word == first).then_some(Extent::Enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_said_twice_means_the_same() {
        let read = |words: &[Word]| {
            let mut meaning = Meaning::default();
            YesNo.read(words, &mut meaning).map(|extent| (extent, meaning.word))
        };
        assert_eq!(read(&[Word::No, Word::No]), Some((Extent::Enough, Some(Spoken::No))));
        assert_eq!(read(&[Word::Other, Word::Yes]), Some((Extent::Enough, Some(Spoken::Yes))));
        assert_eq!(read(&[Word::No, Word::Yes]), None);
        let few = [&[Word::No][..], &[Word::Other; OTHERS_MAX]].concat();
        assert_eq!(read(&few), Some((Extent::Enough, Some(Spoken::No))));
        assert_eq!(read(&[&few[..], &[Word::Other]].concat()), None);
        assert_eq!(read(&[Word::Digit(1)]), None);
        assert_eq!(read(&[]), Some((Extent::Short, None)));
    }
}
