//! Two tries at the same question: what both may have been counts, and so do keys.

use super::answer::{Answers, Evidence, Hypothesis};
use super::beam::log_add;

/// How much less likely than the least answer told one is that was not told, as a logarithm.
const UNTOLD: f32 = 2.0;

/// The answers to a question that was asked twice, taken together. A caller may have said
/// something else the second time: no answer gains from a try that did not hear it.
pub fn fuse(first: &Answers, second: &Answers) -> Answers {
    let mut both = Answers::heard_by(second.ear(), second.field());
    for hypothesis in second.list() {
        let other = find(first, hypothesis).unwrap_or(untold(first));
        both.add(with_score(hypothesis, hypothesis.score() + other));
    }
    for hypothesis in first.list().iter().filter(|known| find(second, known).is_none()) {
        both.add(with_score(hypothesis, hypothesis.score() + untold(second)));
    }
    let sum = both.list().iter().fold(f32::MIN, |sum, known| log_add(sum, known.score()));
    let anything = first.evidence().anything + second.evidence().anything;
    both.finish(Evidence { anything: anything.max(sum), ..Evidence::default() });
    both
}

fn find(answers: &Answers, wanted: &Hypothesis) -> Option<f32> {
    let same = answers.list().iter().find(|known| known.meaning() == wanted.meaning());
    same.map(Hypothesis::score)
}

/// What an answer that is not in the list has at most.
fn untold(answers: &Answers) -> f32 {
    let least = answers.list().last().map_or(0.0, Hypothesis::score);
    least.min(answers.evidence().anything) - UNTOLD
}

fn with_score(hypothesis: &Hypothesis, score: f32) -> Hypothesis {
    let times = hypothesis.times_ms();
    Hypothesis::new(*hypothesis.meaning(), score, times.len(), times.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech::decode::tests::answers;
    use crate::speech::{Field, Outcome};

    #[test]
    fn what_neither_try_was_sure_of_becomes_sure() {
        // Each try mistakes another digit for something nearly as likely.
        let said = [4, 6, 2, 0, 1];
        let first = answers(Field::Zip, &said, &[(1, 9, 0.55)]);
        let second = answers(Field::Zip, &said, &[(4, 7, 0.55)]);
        for one in [&first, &second] {
            assert_ne!(one.list()[0].keys().expose(), "46201");
        }
        let both = fuse(&first, &second);
        assert_eq!(both.list()[0].keys().expose(), "46201");
        let margin = |answers: &Answers| answers.evidence().margin;
        assert!(margin(&both) > margin(&first).max(margin(&second)));
    }

    #[test]
    fn two_tries_that_disagree_stay_in_doubt() {
        let first = answers(Field::Zip, &[4, 6, 2, 0, 1], &[]);
        let second = answers(Field::Zip, &[9, 0, 2, 1, 0], &[]);
        let both = fuse(&first, &second);
        assert_ne!(both.judge().outcome, Outcome::Accept);
    }
}
