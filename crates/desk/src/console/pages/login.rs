//! Owns the page to log in.

use maud::{Markup, html};

use super::frame::document;

/// The page, with why the last attempt failed.
pub(in crate::console) fn login_page(problem: Option<&str>) -> Markup {
    document(
        "Log in",
        &html! {
            main id="main" class="narrow" {
                h1 { "Dead letters of ticketlog" }
                form method="post" action="/login" {
                    @if let Some(problem) = problem { p class="error" role="alert" { (problem) } }
                    label for="token" { "Your token" }
                    input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
                    button class="primary" { "Log in" }
                }
            }
        },
    )
}
