"""The contract suite catches platforms that break the contract: each mistake is found by one of its tests."""

import dataclasses

import pytest
from contract.test_directory import case  # noqa: F401 the case whose platform is replaced

from clouduploader.errors import CannotCreateError
from clouduploader.platforms import directory
from clouduploader.plugin import (
    CloudObject,
    Field,
    FieldKind,
    FoundObject,
    HomeFile,
    ObjectCreated,
    UploadContext,
    UploadResult,
)
from clouduploader.plugin.testing import PlatformContract, UploadContract
from clouduploader.util.cancel import Cancel


class WithoutContext(directory.DirectoryPlatform):
    def upload(self):
        return None


class WithOtherNames(directory.DirectoryPlatform):
    def link_name(self, picture):
        return picture.filename


class WithPath(directory.DirectoryPlatform):
    def link_name(self, image):
        return f"../{image.filename}"


class WithRaisingProblems(directory.DirectoryPlatform):
    def problems(self, targetdata):
        return [targetdata["filename"]]


class WithOddFields(directory.DirectoryPlatform):
    fields = (
        *directory.DirectoryPlatform.fields,
        Field(name="level", description="No full stop", kind=FieldKind.INTEGER),
    )


class WithoutDescription(directory.DirectoryPlatform):
    description = ""


class WithFileOutsideOfTheHome(directory.DirectoryPlatform):
    files = (HomeFile(path="../key", description="A key."),)


class IgnoringStop(directory.DirectoryPlatform):
    def upload(self, ctx):
        return super().upload(UploadContext(self, ctx.request, ctx.reporter, Cancel(), clock=ctx.clock))


class LeavingThings(directory.DirectoryPlatform):
    def upload(self, ctx):
        (self._directory() / "left").touch()
        return super().upload(ctx)


class ForgettingToTell(directory.DirectoryPlatform):
    def upload(self, ctx):
        result = super().upload(ctx)
        return UploadResult(result.id, (*result.objects, CloudObject("thing", "x")))


class AnsweringWithTwoLines(directory.DirectoryPlatform):
    def upload(self, ctx):
        result = super().upload(ctx)
        return dataclasses.replace(result, id=f"{result.id}\nmore")


class WithRawErrors(directory.DirectoryPlatform):
    def upload(self, ctx):
        ctx.request.image.path.stat()
        return super().upload(ctx)


class LeakingSecrets(directory.DirectoryPlatform):
    fields = (dataclasses.replace(directory.DirectoryPlatform.fields[0], is_secret=True),)

    def upload(self, ctx):
        raise CannotCreateError(f"{ctx.targetdata['filename']} is wrong")


class PlanningByDoing(directory.DirectoryPlatform):
    def plan(self, ctx):
        ctx.reporter.event(ObjectCreated(CloudObject("thing", "x")))
        return ["do it"]


class GivingResultsAway(directory.DirectoryPlatform):
    def find(self, ctx, key):
        paths = [path for path in self._directory().iterdir() if not path.name.startswith(".")]
        return [FoundObject(CloudObject("file", str(path)), "", "", None, None) for path in paths]


def touching(context):
    (context.home / "touched").touch()
    return directory.DirectoryPlatform(context)


def importing(context):
    import boto3  # noqa: F401

    return directory.DirectoryPlatform(context)


P, U = PlatformContract, UploadContract


@pytest.mark.parametrize(
    ("create", "suite", "test", "error"),
    [
        ("WithoutContext", P, "signatures_take_what_is_passed", TypeError),
        ("WithOtherNames", P, "signatures_take_what_is_passed", AssertionError),
        ("WithPath", P, "link_name_of_the_case_is_safe", AssertionError),
        ("WithPath", P, "link_name_is_a_safe_base_name_or_refused", AssertionError),
        ("WithRaisingProblems", P, "problems_are_lines_and_never_raise", KeyError),
        ("WithOddFields", P, "fields_are_complete_and_have_a_schema", AssertionError),
        ("WithoutDescription", P, "description_is_a_sentence", AssertionError),
        ("WithFileOutsideOfTheHome", P, "files_are_below_the_home_and_explained", AssertionError),
        ("touching", P, "making_it_is_cheap_and_touches_nothing", AssertionError),
        ("importing", P, "making_it_is_cheap_and_touches_nothing", AssertionError),
        ("IgnoringStop", U, "upload_stopped_before_it_began_leaves_nothing", pytest.fail.Exception),
        ("LeavingThings", U, "upload_that_fails_leaves_nothing", AssertionError),
        ("LeavingThings", U, "upload_stopped_before_it_began_leaves_nothing", AssertionError),
        ("ForgettingToTell", U, "upload_gives_a_line_and_its_objects", AssertionError),
        ("AnsweringWithTwoLines", U, "upload_gives_a_line_and_its_objects", AssertionError),
        ("WithRawErrors", U, "upload_that_fails_leaves_nothing", FileNotFoundError),
        ("LeakingSecrets", U, "upload_that_fails_leaves_nothing", AssertionError),
        ("PlanningByDoing", U, "plan_changes_nothing", AssertionError),
        ("GivingResultsAway", U, "find_changes_nothing_and_keeps_what_an_upload_gave", AssertionError),
    ],
)
def test_mistake_is_found(case, create, suite, test, error, tmp_path):  # noqa: F811
    bad = dataclasses.replace(case, reference=f"contract.test_suite:{create}")
    arguments = {"tmp_path": tmp_path} if suite is U else {}
    with pytest.raises(error):
        getattr(suite(), f"test_{test}")(case=bad, **arguments)
