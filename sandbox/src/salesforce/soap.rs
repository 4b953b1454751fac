//! SOAP, as far as clients need it to log in: `/services/Soap/u/NN.0` (or
//! `c`) with `login`, `logout`, `getUserInfo` and `getServerTimestamp`.

use axum::http::StatusCode;

use super::auth;
use super::{Salesforce, moment};
use crate::exchange::{Answer, Call};

/// The last version with `login`.
const LAST_WITH_LOGIN: u32 = 64;

/// Answers a call of a version's endpoint.
pub fn answer(org: &Salesforce, call: &Call, dialect: &str, version: &str) -> Answer {
    let body = String::from_utf8_lossy(&call.body);
    let number: Option<u32> = version
        .strip_suffix(".0")
        .and_then(|number| number.parse().ok());
    let Some(number) = number.filter(|number| super::rest::VERSIONS.contains(number)) else {
        return fault(
            dialect,
            "UNSUPPORTED_API_VERSION",
            "Invalid Api version specified on URL",
        );
    };
    let space = match dialect {
        "c" => "urn:enterprise.soap.sforce.com",
        _ => "urn:partner.soap.sforce.com",
    };
    if has(&body, "login") {
        return login(org, call, &body, dialect, space, number, version);
    }
    let session = text(&body, "sessionId").unwrap_or_default();
    if !org.auth.knows(&session) {
        return fault(
            dialect,
            "INVALID_SESSION_ID",
            "Invalid Session ID found in SessionHeader: Illegal Session",
        );
    }
    if has(&body, "logout") {
        org.auth.expire(&session);
        return envelope(StatusCode::OK, space, "<logoutResponse/>");
    }
    if has(&body, "getUserInfo") {
        let result = format!(
            "<getUserInfoResponse><result>{}</result></getUserInfoResponse>",
            user_info()
        );
        return envelope(StatusCode::OK, space, &result);
    }
    if has(&body, "getServerTimestamp") {
        let now = moment::print(moment::now()).replace("+0000", "Z");
        let result = format!(
            "<getServerTimestampResponse><result><timestamp>{now}</timestamp></result></getServerTimestampResponse>"
        );
        return envelope(StatusCode::OK, space, &result);
    }
    fault(
        dialect,
        "UNKNOWN_EXCEPTION",
        "the stand-in has no such operation",
    )
}

fn login(
    org: &Salesforce,
    call: &Call,
    body: &str,
    dialect: &str,
    space: &str,
    number: u32,
    version: &str,
) -> Answer {
    if number > LAST_WITH_LOGIN {
        return fault(
            dialect,
            "INVALID_OPERATION",
            "SOAP API login() is disabled by default in this org. Contact the org administrator to enable SOAP API \
             login().",
        );
    }
    let (name, password) = (text(body, "username"), text(body, "password"));
    if !auth::is_user(
        name.as_deref().unwrap_or_default(),
        password.as_deref().unwrap_or_default(),
    ) {
        return fault(
            dialect,
            "INVALID_LOGIN",
            "Invalid username, password, security token; or user locked out.",
        );
    }
    let (origin, token) = (call.origin(), org.auth.issue());
    let organization = auth::organization().to_string();
    let short = &organization[..15];
    let result = format!(
        "<loginResponse><result>\
         <metadataServerUrl>{origin}/services/Soap/m/{version}/{short}</metadataServerUrl>\
         <passwordExpired>false</passwordExpired><sandbox>true</sandbox>\
         <serverUrl>{origin}/services/Soap/{dialect}/{version}/{short}</serverUrl>\
         <sessionId>{token}</sessionId><userId>{}</userId>\
         <userInfo>{}</userInfo></result></loginResponse>",
        auth::user(),
        user_info()
    );
    envelope(StatusCode::OK, space, &result)
}

fn user_info() -> String {
    let (organization, user) = (auth::organization(), auth::user());
    let name = auth::USERNAME;
    format!(
        "<accessibilityMode>false</accessibilityMode><chatterExternal>false</chatterExternal>\
         <currencySymbol xsi:nil=\"true\"/><orgAttachmentFileSizeLimit>5242880</orgAttachmentFileSizeLimit>\
         <orgDefaultCurrencyIsoCode xsi:nil=\"true\"/><orgDisallowHtmlAttachments>false</orgDisallowHtmlAttachments>\
         <orgHasPersonAccounts>true</orgHasPersonAccounts><organizationId>{organization}</organizationId>\
         <organizationMultiCurrency>true</organizationMultiCurrency><organizationName>Drover Sandbox</organizationName>\
         <profileId>00eDv0000000001MAA</profileId><roleId xsi:nil=\"true\"/>\
         <sessionSecondsValid>7200</sessionSecondsValid><userDefaultCurrencyIsoCode>USD</userDefaultCurrencyIsoCode>\
         <userEmail>admin@example.com</userEmail><userFullName>Admin Sandbox</userFullName><userId>{user}</userId>\
         <userLanguage>en_US</userLanguage><userLocale>en_US</userLocale><userName>{name}</userName>\
         <userTimeZone>America/Los_Angeles</userTimeZone><userType>Standard</userType>\
         <userUiSkin>Theme3</userUiSkin>"
    )
}

fn envelope(status: StatusCode, space: &str, content: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns=\"{space}\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body>{content}</soapenv:Body>\
         </soapenv:Envelope>"
    );
    Answer::new(status, "text/xml;charset=UTF-8", body)
}

fn fault(dialect: &str, code: &str, message: &str) -> Answer {
    let space = match dialect {
        "c" => "urn:fault.enterprise.soap.sforce.com",
        _ => "urn:fault.partner.soap.sforce.com",
    };
    let kind = match code {
        "INVALID_LOGIN" => "LoginFault",
        _ => "UnexpectedErrorFault",
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns:sf=\"{space}\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Body><soapenv:Fault>\
         <faultcode>sf:{code}</faultcode><faultstring>{code}: {message}</faultstring><detail>\
         <sf:{kind} xsi:type=\"sf:{kind}\"><sf:exceptionCode>{code}</sf:exceptionCode>\
         <sf:exceptionMessage>{message}</sf:exceptionMessage></sf:{kind}></detail></soapenv:Fault>\
         </soapenv:Body></soapenv:Envelope>"
    );
    Answer::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "text/xml;charset=UTF-8",
        body,
    )
}

/// Where an element begins behind its name, whatever its prefix.
fn begin(body: &str, name: &str) -> Option<usize> {
    body.match_indices(name).find_map(|(at, _)| {
        let before = body[..at].chars().next_back()?;
        let opened = match before {
            '<' => true,
            ':' => {
                let prefix = body[..at - 1].rsplit('<').next()?;
                !prefix.is_empty() && prefix.chars().all(char::is_alphanumeric)
            }
            _ => false,
        };
        let after = body[at + name.len()..].chars().next()?;
        let ended = after == '>' || after == '/' || after.is_whitespace();
        (opened && ended).then_some(at + name.len())
    })
}

fn has(body: &str, name: &str) -> bool {
    begin(body, name).is_some()
}

/// The text of the first element of this name.
pub fn text(body: &str, name: &str) -> Option<String> {
    let rest = &body[begin(body, name)?..];
    let rest = &rest[rest.find('>')? + 1..];
    let content = &rest[..rest.find('<')?];
    Some(
        content
            .trim()
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_whatever_their_prefix() {
        let body = "<n1:login xmlns:n1=\"urn:x\"><n1:username>a&amp;b</n1:username><password>p&lt;</password></n1:login>";
        assert!(has(body, "login") && !has(body, "logout"));
        assert_eq!(text(body, "username").as_deref(), Some("a&b"));
        assert_eq!(text(body, "password").as_deref(), Some("p<"));
        assert_eq!(text(body, "user"), None);
    }
}
