//! Texts in the one form that a mapping asks for, by libraries that know the
//! world's telephone numbers (Google's libphonenumber) and countries (ISO 3166).

use std::str::FromStr;

use celes::Country;
use drover_pipeline::transform::Form;
use phonenumber::{Mode, country, parse};

/// The text in that form; `None` when it can't be read so. `region` is the
/// country of a telephone number that names none.
pub fn bring(text: &str, form: Form, region: Option<&str>) -> Option<String> {
    match form {
        Form::Phone => phone(text, region),
        Form::Country => country(text).map(|country| country.alpha2.to_owned()),
    }
}

/// `+4930123456`; with its extension, `+4930123456;ext=12` (RFC 3966).
fn phone(text: &str, region: Option<&str>) -> Option<String> {
    let number = parse(region.and_then(self::region), text).ok()?;
    if !number.is_valid() {
        return None;
    }
    let mut written = number.format().mode(Mode::E164).to_string();
    if let Some(extension) = number.extension() {
        let digits: String = extension.to_string();
        let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
        if !written.contains(";ext=") {
            written.push_str(";ext=");
            written.push_str(&digits);
        }
    }
    Some(written)
}

/// The region that a text names: a country in any of its forms.
pub fn region(text: &str) -> Option<country::Id> {
    country::Id::from_str(country(text)?.alpha2).ok()
}

/// A country by its name, by a short name, or by two or three letters.
fn country(text: &str) -> Option<Country> {
    let letters: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let found = Country::from_str(&letters);
    // The official names of some begin with an article: The Netherlands.
    let found = found.or_else(|_| Country::from_str(&format!("the{letters}")));
    found
        .ok()
        .filter(|_| letters.chars().all(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_number_has_one_form() {
        let phone = |text, region| bring(text, Form::Phone, region);
        assert_eq!(
            phone("+44 191 4956203", None).as_deref(),
            Some("+441914956203")
        );
        assert_eq!(
            phone("(312) 596-1000", Some("US")).as_deref(),
            Some("+13125961000")
        );
        assert_eq!(
            phone("(312) 596-1000", Some("United States")).as_deref(),
            Some("+13125961000")
        );
        assert_eq!(
            phone("+1 312 596 1000 ext. 12", None).as_deref(),
            Some("+13125961000;ext=12")
        );
        // A number of nowhere, letters, and one that no country has.
        assert_eq!(phone("(312) 596-1000", None), None);
        assert_eq!(phone("555-UPDATED", Some("US")), None);
        assert_eq!(phone("123", Some("US")), None);
    }

    #[test]
    fn a_country_is_found_by_name_and_code() {
        let country = |text| bring(text, Form::Country, None);
        for (text, code) in [
            ("United States", "US"),
            ("United States of America", "US"),
            ("USA", "US"),
            ("us", "US"),
            ("Germany", "DE"),
            ("germany", "DE"),
            ("France", "FR"),
            ("United Kingdom", "GB"),
            ("Singapore", "SG"),
            ("Türkiye", "TR"),
        ] {
            assert_eq!(country(text).as_deref(), Some(code), "{text}");
        }
        for text in ["UK", "Atlantis", "", "XX"] {
            assert_eq!(country(text), None, "{text}");
        }
    }
}
