"""A login without the throttle around it."""

from auth.accounts import Accounts
from auth.users import User


async def authenticate(accounts: Accounts, username: str, password: str) -> User:
    return await accounts.verify(await accounts.credentials(await accounts.find_id(username)), password)
