import os

from clouduploader.uploads.task import UploadTask


def test_task_does_not_show_its_target_data(tmp_path):
    task = UploadTask(
        user="tom", target="x", image_path=tmp_path, targetdata=b"sesame-x", filename=None, job=None, is_by_hand=False
    )
    assert "sesame-x" not in repr(task)
    assert os.fspath(tmp_path) in repr(task)
