"""Asking a rating service: one request, its answer checked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from textgym.arguments import is_payable
from textgym.http.client import Endpoint, WrongAnswer, described_status, read_list
from textgym.ratings.protocol import Submission


class RatingClient(Endpoint):
    """The training run's side of `textgym.ratings.protocol`; may be copied and pickled."""

    def ask(
        self, submissions: Sequence[Submission], *, retry: bool = True
    ) -> tuple[list[float | None], bool]:
        """The ratings of some texts.

        Args:
            submissions: The texts.
            retry: Whether to send the request again if it fails.

        Returns:
            The rating of each, None where there is none; and whether those are still to come.

        Raises:
            ServiceDown: If no request succeeded.
            WrongAnswer: If the request is refused, or the answer is not as agreed.
        """
        body = json.dumps({"samples": [submission.to_json() for submission in submissions]})
        response = self.post(body, retry=retry)
        if response.status_code not in (200, 202):
            raise WrongAnswer(f"status {described_status(response)}")
        ratings = read_list(response, "ratings")
        if len(ratings) != len(submissions):
            raise WrongAnswer(f"{len(ratings)} ratings for {len(submissions)} samples")
        for rating in ratings:
            if rating is not None and not is_payable(rating):
                raise WrongAnswer(f"the rating {rating!r:.200}; expected a finite number or null")
        return ratings, response.status_code == 202
