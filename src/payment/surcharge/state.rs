//! Which state a ZIP code is in, by its first three digits: the sectional centers of the United
//! States Postal Service (Publication 65). A few codes at borders belong to the neighbour.

/// First and last of the three digits, and the state's letters.
const RANGES: [(u16, u16, &str); 75] = [
    (5, 5, "NY"),
    (6, 7, "PR"),
    (8, 8, "VI"),
    (9, 9, "PR"),
    (10, 27, "MA"),
    (28, 29, "RI"),
    (30, 38, "NH"),
    (39, 49, "ME"),
    (50, 54, "VT"),
    (55, 55, "MA"),
    (56, 59, "VT"),
    (60, 69, "CT"),
    (70, 89, "NJ"),
    (100, 149, "NY"),
    (150, 196, "PA"),
    (197, 199, "DE"),
    (200, 200, "DC"),
    (201, 201, "VA"),
    (202, 205, "DC"),
    (206, 212, "MD"),
    (214, 219, "MD"),
    (220, 246, "VA"),
    (247, 268, "WV"),
    (270, 289, "NC"),
    (290, 299, "SC"),
    (300, 319, "GA"),
    (320, 339, "FL"),
    (341, 342, "FL"),
    (344, 344, "FL"),
    (346, 347, "FL"),
    (349, 349, "FL"),
    (350, 352, "AL"),
    (354, 369, "AL"),
    (370, 385, "TN"),
    (386, 397, "MS"),
    (398, 399, "GA"),
    (400, 427, "KY"),
    (430, 459, "OH"),
    (460, 479, "IN"),
    (480, 499, "MI"),
    (500, 528, "IA"),
    (530, 549, "WI"),
    (550, 567, "MN"),
    (569, 569, "DC"),
    (570, 577, "SD"),
    (580, 588, "ND"),
    (590, 599, "MT"),
    (600, 629, "IL"),
    (630, 658, "MO"),
    (660, 679, "KS"),
    (680, 693, "NE"),
    (700, 714, "LA"),
    (716, 729, "AR"),
    (730, 731, "OK"),
    (733, 733, "TX"),
    (734, 749, "OK"),
    (750, 799, "TX"),
    (800, 816, "CO"),
    (820, 831, "WY"),
    (832, 838, "ID"),
    (840, 847, "UT"),
    (850, 865, "AZ"),
    (870, 884, "NM"),
    (885, 885, "TX"),
    (889, 898, "NV"),
    (900, 908, "CA"),
    (910, 928, "CA"),
    (930, 961, "CA"),
    (967, 968, "HI"),
    (969, 969, "GU"),
    (970, 979, "OR"),
    (980, 986, "WA"),
    (988, 994, "WA"),
    (995, 999, "AK"),
    (340, 340, "AA"),
];

/// The state of a five-digit ZIP code; `None` where nobody knows.
pub fn of_zip(zip: &str) -> Option<&'static str> {
    let five = zip.len() == 5 && zip.bytes().all(|b| b.is_ascii_digit());
    let center: u16 = zip.get(..3).filter(|_| five)?.parse().ok()?;
    let found = RANGES.iter().find(|(first, last, _)| (*first..=*last).contains(&center));
    found.map(|(_, _, letters)| *letters)
}

/// Whether these are the letters of a state.
pub fn is_known(letters: &str) -> bool {
    RANGES.iter().any(|(_, _, known)| *known == letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_is_in_two_states() {
        for center in 0..1_000u16 {
            let at = RANGES.iter().filter(|(first, last, _)| (*first..=*last).contains(&center));
            assert!(at.count() <= 1, "{center:03}");
        }
    }

    #[test]
    fn well_known_codes_are_where_they_are() {
        for (zip, state) in [
            ("02108", Some("MA")),
            ("01810", Some("MA")),
            ("05501", Some("MA")),
            ("05401", Some("VT")),
            ("04101", Some("ME")),
            ("06103", Some("CT")),
            ("00901", Some("PR")),
            ("00601", Some("PR")),
            ("00802", Some("VI")),
            ("10001", Some("NY")),
            ("20500", Some("DC")),
            ("20101", Some("VA")),
            ("46201", Some("IN")),
            ("73301", Some("TX")),
            ("75201", Some("TX")),
            ("73101", Some("OK")),
            ("80202", Some("CO")),
            ("90210", Some("CA")),
            ("99501", Some("AK")),
            ("00000", None),
            ("4620", None),
            ("4620a", None),
            ("462011", None),
        ] {
            assert_eq!(of_zip(zip), state, "{zip}");
        }
        // Fifty states, the District, Puerto Rico, the Virgin Islands, Guam and the forces.
        let all: std::collections::BTreeSet<&str> = RANGES.iter().map(|(.., at)| *at).collect();
        assert_eq!(all.len(), 55);
        assert!(is_known("CT") && !is_known("ct") && !is_known("XX"));
    }
}
