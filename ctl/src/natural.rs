//! The order in which people sort names that have numbers in them: `gw2` comes
//! before `gw10`.

use std::cmp::Ordering;

/// Compares two texts, in which each run of digits counts as one number. Texts
/// that differ only in leading zeros are compared as they are.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (x, rest_of_left) = part(left);
        let (y, rest_of_right) = part(right);
        let order = match (number(x), number(y)) {
            // The longer one of two numbers without leading zeros is the larger.
            (Some(m), Some(n)) => m.len().cmp(&n.len()).then_with(|| m.cmp(n)),
            _ => x.cmp(y),
        };
        if order != Ordering::Equal {
            return order;
        }
        if x.is_empty() {
            return a.cmp(b);
        }
        (left, right) = (rest_of_left, rest_of_right);
    }
}

/// The digits, or else the other characters, that `text` begins with, and the rest
/// of it.
fn part(text: &str) -> (&str, &str) {
    let begins_with_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != begins_with_digit).unwrap_or(text.len());
    text.split_at(end)
}

/// A run of digits without its leading zeros.
fn number(part: &str) -> Option<&str> {
    part.starts_with(|c: char| c.is_ascii_digit()).then(|| part.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let sorted = [
            "", "9", "10", "a", "a01", "a1", "a1b", "a2", "a2b9", "a2b10", "a10", "a10-1", "b", "gw", "gw1x",
        ];
        let mut shuffled = sorted;
        shuffled.reverse();
        shuffled.sort_by(|a, b| compare(a, b));
        assert_eq!(shuffled, sorted);
        let long = format!("a1{}", "0".repeat(400));
        assert_eq!(compare(&long, "a2"), Ordering::Greater, "no number is too long");
        assert_eq!(compare("ü2", "ü10"), Ordering::Less);
    }
}
