"""The password policy refuses easily guessed passwords with every reason, and accepts long unusual ones."""

import threading
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.breaches import BadBreachFile, BreachFile
from auth.errors import WeakPassword
from auth.password_policy import PasswordPolicy

POLICY = PasswordPolicy()
SHORT = PasswordPolicy(min_length=8)
FILLER = "correct horse battery staple, " * 40

LENGTH = "must have at least 15 characters"
DIFFERENT = "must have at least 5 different characters"
COMMON = "must not be a common password or a single word, with or without digits and signs around it"
REPEATED = "must not be something shorter repeated"
RUNS = "must not be mostly sequences such as abcdef, 12345, qwerty or aaaaa"
USER = "must not contain the user name"
SERVICE = "must not contain the name of this service"
BREACHED = "must not be known from a data breach"


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "äöüßñçéèêëíìîïó",
        "  spaces, inside and around  ",
        "x7!Kq9#mZ2$wL4@",
        "abcdefgh-X7q-2w9z-",  # a run, and enough beside it
        "qwertyuiop-9Xk2-zL7",
        "tagesschau um acht uhr",
        "パスワードは長いほうがよい、と言う",
        "571930284619375",
    ],
)
def test_a_long_password_needs_no_special_characters(password: str) -> None:
    assert POLICY.reasons(password, "somebody") == []


# --- length ---


@pytest.mark.parametrize("password", ["", "x", "a 14-char pass", "e\u0301" * 14])
def test_fewer_than_fifteen_characters_after_composition_are_too_few(password: str) -> None:
    assert LENGTH in POLICY.reasons(password)


def test_the_minimum_length_is_configurable() -> None:
    assert SHORT.reasons("x7!Kq9#m") == []
    assert SHORT.reasons("x7!Kq9#") == ["must have at least 8 characters"]
    assert PasswordPolicy(min_length=40).reasons("correct horse battery staple") == ["must have at least 40 characters"]


@pytest.mark.parametrize("least", [-1, 0, 7, 129])
def test_the_minimum_length_must_be_within_its_bounds(least: int) -> None:
    with pytest.raises(ValueError, match="between 8 and 128"):
        PasswordPolicy(min_length=least)


def test_the_upper_limit_counts_bytes() -> None:
    assert POLICY.reasons(FILLER[:1024]) == []
    assert POLICY.reasons(FILLER[:1025]) == ["must have at most 1024 bytes"]
    assert POLICY.reasons(FILLER[:1022] + "ä") == []
    assert POLICY.reasons(FILLER[:1023] + "ä") == ["must have at most 1024 bytes"]


def test_a_lone_surrogate_in_a_new_password_does_not_crash() -> None:
    assert POLICY.reasons("\ud800" * 10)
    assert POLICY.reasons("correct horse \ud800 battery staple") == []


# --- easily guessed passwords ---


@pytest.mark.parametrize(
    "password",
    [
        "password1234567!",
        "Password!!!!!!!!",
        "PASSWORD-2024-10-17",
        "123-password-123",
        "P@ssw0rd-2024-09",
        "ｐａｓｓｗｏｒｄ-2024-09",
        "congratulations",
        "congratulations!",
        "1qaz2wsx3edc4rfv",
        "dragon 1980 06 21",
    ],
)
def test_a_common_word_stays_common_with_digits_signs_and_capitals(password: str) -> None:
    assert COMMON in POLICY.reasons(password)


def test_common_passwords_of_eight_characters_are_refused() -> None:
    for password in ("password", "Football", "trustno1", "dragon12", "iloveyou!"):
        assert COMMON in SHORT.reasons(password)


@pytest.mark.parametrize(
    "password",
    ["abcabcabcabcabc", "passwordpassword", "PasswordpassworD1!", "k9#Wk9#Wk9#Wk9#Wk9", "correct horse correct horse "],
)
def test_repeating_a_short_text_does_not_make_it_long(password: str) -> None:
    assert REPEATED in POLICY.reasons(password)


def test_repeating_a_text_that_is_long_enough_is_accepted() -> None:
    assert POLICY.reasons("correct horse battery " * 2) == []


@pytest.mark.parametrize(
    "password",
    [
        "abcdefghijklmnop",
        "ponmlkjihgfedcba",
        "123456789012345",
        "098765432109876",
        "qwertyuiopasdfghjkl",
        "lkjhgfdsapoiuytrewq",
        "qwertzuiopasdfg",
        "azertyuiopqsdfg",
        "QWERTYuiop12345",
        "1qaz2wsx3edc5tgb",
        "йцукенгшщзхъфыва",
        "абвгдежзиклмноп",
        "     abcde     ",
        "aaaaaaaa11111111",
        "abcdefgh-12345678-z!",
    ],
)
def test_sequences_with_few_other_characters_are_refused(password: str) -> None:
    assert RUNS in POLICY.reasons(password)


def test_few_different_characters_are_refused() -> None:
    assert DIFFERENT in POLICY.reasons("hmhsmshhsmmhshmsh")


# --- names ---


@pytest.mark.parametrize(
    ("password", "username"),
    [
        ("me is Somebody, really", "sOMEBODY"),
        ("some-body is at the door", "somebody"),
        ("adalovelace likes engines", "Ada.Lovelace"),
        ("ada.lovelace likes engines", "ada.lovelace@example.org"),
        ("the password of ｚｏｅ.r", "zoe.r"),
        ("ann ann ann 4x lee", "ann"),
        ("-----x7!Kq9#mZ2$", "-----"),
    ],
)
def test_a_password_with_the_user_name_in_any_spelling_is_refused(password: str, username: str) -> None:
    assert POLICY.reasons(password, username) == [USER]


def test_a_user_name_of_three_letters_may_occur_in_a_password() -> None:
    assert POLICY.reasons("an annoyingly long one", "ann") == []


@pytest.mark.parametrize("password", ["my login at 100ms, ok", "HMS gateway is nice", "hms_gateway/hms_gateway?"])
def test_a_password_with_the_name_of_the_service_is_refused(password: str) -> None:
    assert SERVICE in POLICY.reasons(password)


def test_the_names_of_the_service_are_configurable() -> None:
    policy = PasswordPolicy(service_names=("Acme Meet",))
    assert policy.reasons("the acmemeet of mine") == [SERVICE]
    assert policy.reasons("my login at 100ms, ok") == []


# --- as a whole ---


async def test_every_reason_is_given_at_once_and_none_repeats_the_password() -> None:
    with pytest.raises(WeakPassword) as caught:
        await POLICY.check("bobbybobby", username="bobby")
    assert caught.value.reasons == [LENGTH, DIFFERENT, REPEATED, USER]
    assert "bobby" not in str(caught.value)
    assert str(caught.value) == (
        "The password must have at least 15 characters, have at least 5 different characters, "
        "not be something shorter repeated and not contain the user name."
    )


async def test_a_breached_password_is_refused_off_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "breached.txt"
    path.write_text("something else entirely\ncorrect horse battery staple\n")
    policy = PasswordPolicy(breached=BreachFile(path))
    threads: list[int] = []
    holds = BreachFile.holds

    def noting(self: BreachFile, password: str) -> bool:
        threads.append(threading.get_ident())
        return holds(self, password)

    monkeypatch.setattr(BreachFile, "holds", noting)
    with pytest.raises(WeakPassword) as caught:
        await policy.check("correct horse battery staple", username="somebody")
    assert caught.value.reasons == [BREACHED]
    await policy.check("correct horse battery stable", username="somebody")
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_without_its_breach_file_no_password_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "breached.txt"
    path.write_text("something\n")
    policy = PasswordPolicy(breached=BreachFile(path))
    path.unlink()
    with pytest.raises(BadBreachFile):
        await policy.check("correct horse battery staple")


@given(st.text(max_size=80), st.text(max_size=20))
def test_composed_and_decomposed_forms_of_a_text_are_judged_alike(password: str, username: str) -> None:
    decomposed = unicodedata.normalize("NFD", password)
    assert POLICY.reasons(password, username) == POLICY.reasons(decomposed, username)


# Characters up to U+02FF do not compose, so the repeated pieces do not change at their borders.
@given(st.text(st.characters(max_codepoint=0x2FF), min_size=1, max_size=14), st.integers(28, 60))
def test_no_repeated_short_text_is_accepted(piece: str, length: int) -> None:
    assert POLICY.reasons((piece * length)[:length])


@given(st.text("abcdefghijkmnpqrstuvwxyz23456789", min_size=24, max_size=24), st.integers(0, 9))
def test_no_password_that_contains_the_name_is_accepted(password: str, at: int) -> None:
    assert USER in POLICY.reasons(password[:at] + "Margaret.H" + password[at:], "margaret.h")
